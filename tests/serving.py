"""`gort serve` in a process of its own, the application it serves, and clients for it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gort
from waiting import LIMIT, eventually

APP = """
import gort, os, subprocess, time

VERSION = "one"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        open("inside", "a").write("x")
        while not os.path.exists("go"):
            time.sleep(0.01)
    if path == "/stuck":
        open("inside", "a").write("x")
        import ctypes
        ctypes.PyDLL(None).sleep(1000)  # keeps the GIL
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/child":
        script = "ls -l /proc/$$/fd; grep SigIgn /proc/$$/status"
        return [subprocess.run(["sh", "-c", script], close_fds=False, capture_output=True).stdout]
    kind = "goroutine" if gort.current() else "thread"
    many, scheme = environ["wsgi.multiprocess"], environ["wsgi.url_scheme"]
    return [f"{os.getpid()} {VERSION} {kind} {scheme} {many}".encode()]

def make():
    return app

class Holder:
    app = staticmethod(app)
"""
GRACE = 0.9  # of the second in which a draining server lets an idle client ask once more


class Serve:
    """A running `gort serve`: its process and its log."""

    def __init__(self, process, folder):
        self.process = process
        self.folder = folder

    @property
    def log(self):
        return (self.folder / "log").read_text()

    @property
    def port(self):
        return int(re.search(r"serving \S+ at https?://\S+:(\d+), ", self.log)[1])

    @property
    def pids(self):
        """The workers that serve, as the log has them."""
        return re.findall(r"worker\w? ([\d, ]+)$", self.log, re.M)[-1].split(", ")

    def said(self, text, times=1):
        """Wait until the log has it."""
        eventually(lambda: self.log.count(text) >= times or self.process.poll() is not None)
        assert self.log.count(text) >= times, self.log

    def send(self, number):
        self.process.send_signal(number)

    def end(self, status=0, number=signal.SIGTERM):
        """End it; its exit status must be `status`."""
        self.send(number)
        assert self.process.wait(LIMIT) == status, self.log

    def ask(self, path="/"):
        """One request over a connection of its own: the words of the answer."""
        status, words = ask(self.port, path)
        assert status == 200, words
        return words


@contextlib.contextmanager
def serve(folder, *options, app=APP, code="", name="served:app"):
    """Run `gort serve`; a Serve, with all workers serving. `code` is run before in its process."""
    (folder / "served.py").write_text(app)
    start = f"{code}\nimport sys, gort.cli; sys.exit(gort.cli.main(['serve', *sys.argv[1:]]))"
    port = () if "--host" in options else ("--port", "0")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-B", "-c", start, name, *port, *options],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    one = Serve(process, folder)
    try:
        one.said(f"serving {name} at ")
        yield one
    finally:
        (folder / "go").touch()
        if process.poll() is None:
            process.kill()
            process.wait()
        print(one.log)


def ask(port, path="/"):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read().decode().split()
    finally:
        client.close()


def is_alive(pid):
    """Whether there is such a process, a zombie not counted."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Load:
    """Clients that ask without a pause, kept connections and fresh ones, and what they were told."""

    def __init__(self, port, kept=8, fresh=4, connect=None):
        self._connect = connect or (
            lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        )
        self.answers = 0
        self.pids, self.versions, self.dropped = set(), set(), []
        self._stop = False
        self._clients = [gort.go(self._client, n < kept) for n in range(kept + fresh)]

    def _client(self, is_kept):
        connection, last = None, 0.0
        while not self._stop:
            is_first = connection is None
            if is_first:
                connection = self._connect()
            asked = time.monotonic()
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                words = response.read().decode().split()
            except (OSError, http.client.HTTPException) as error:
                if is_first or time.monotonic() - last < GRACE:
                    self.dropped.append(error)
                connection.close()  # else it was idle for so long that the server may close it
                connection = None
                continue
            last = asked  # the server has not been idle for longer, however late it was read
            if response.status == 200:
                self.answers += 1
                self.pids.add(words[0])
                self.versions.add(words[1])
            else:
                self.dropped.append(words)
            if response.will_close or not is_kept:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def end(self):
        self._stop = True
        for client in self._clients:
            client.join(LIMIT)


def lines(text):
    """The lines of stderr that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


def refused(folder, *arguments):
    """Run `gort serve` with arguments that are no good; its status and the lines of stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "gort", "serve", *arguments],
        capture_output=True, text=True, timeout=LIMIT, cwd=folder, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.stdout == ""
    return done.returncode, lines(done.stderr)
