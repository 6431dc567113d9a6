"""The worker under gunicorn itself, in processes of its own: it serves, reloads and ends in order."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serving import ask
from waiting import LIMIT, eventually

HERE = Path(__file__).resolve().parent

APP = """
import gort, os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        open("inside", "a").write("x")
        while not os.path.exists("go"):
            time.sleep(0.01)
    if path == "/fails":
        raise KeyError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    kind = "goroutine" if gort.current() else "thread"
    text = f"{os.getpid()} {kind} {environ['wsgi.url_scheme']} {environ['wsgi.multiprocess']}"
    return [text.encode()]
"""


@contextlib.contextmanager
def gunicorn(folder, *options):
    """Run gunicorn over a socket of ours; the process and the port."""
    (folder / "served.py").write_text(APP)
    with socket.socket() as listener, open(folder / "log", "wb") as log:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1000)
        number = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-k", "gort.gunicorn.Worker", "-b", f"fd://{number}",
             "--no-control-socket", *options, "served:app"],
            cwd=folder, pass_fds=[number], stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield process, listener.getsockname()[1]
        finally:
            (folder / "go").touch()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            print((folder / "log").read_text())


def test_worker_serves_and_sigterm_lets_requests_finish(tmp_path):
    with gunicorn(tmp_path, "--access-logfile", "-") as (process, port):
        status, (pid, kind, scheme, many) = ask(port)
        assert (status, kind, scheme, many) == (200, "goroutine", "http", "False")
        assert int(pid) != process.pid
        assert ask(port, "/fails")[0] == 500
        found = []
        client = threading.Thread(target=lambda: found.append(ask(port, "/slow")))
        client.start()
        eventually((tmp_path / "inside").exists)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: "Handling signal: term" in (tmp_path / "log").read_text())
        (tmp_path / "go").touch()
        client.join(LIMIT)
        assert [status for status, _ in found] == [200]
        assert process.wait(LIMIT) == 0
    log = (tmp_path / "log").read_text()
    assert '"GET / HTTP/1.1" 200' in log
    assert "KeyError: 'on purpose'" in log


def test_reload_replaces_workers_and_loses_no_request(tmp_path):
    with gunicorn(tmp_path, "-w", "2") as (process, port):
        ask(port)
        stop, failed, seen = [], [], set()

        def client():
            while not stop:
                try:
                    status, words = ask(port)
                    seen.add(words[0])
                    if status != 200 or words[3] != "True":
                        failed.append(words)
                except OSError as error:
                    failed.append(error)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        eventually(lambda: len(seen) == 2)
        for _ in range(2):
            before = set(seen)
            process.send_signal(signal.SIGHUP)
            eventually(lambda before=before: len(seen - before) == 2)
            eventually(lambda before=before: not any(map(is_alive, before)))
        stop.append(1)
        for thread in clients:
            thread.join(LIMIT)
        assert failed == []
        assert len(seen) == 6


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")


def test_worker_ends_after_its_requests_and_another_takes_over(tmp_path):
    with gunicorn(tmp_path, "--max-requests", "3") as (_, port):
        pids = []
        eventually(lambda: pids.append(ask(port)[1][0]) or len(set(pids)) == 3)
        assert pids.count(pids[0]) >= 3


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT])
def test_quit_cuts_requests(tmp_path, sign):
    with gunicorn(tmp_path) as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually((tmp_path / "inside").exists)
            process.send_signal(sign)
            assert process.wait(LIMIT) == 0
            assert sock.recv(100) == b""


def test_quit_behind_sigterm_does_not_wait(tmp_path):
    with gunicorn(tmp_path, "--graceful-timeout", "600") as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually((tmp_path / "inside").exists)
            process.send_signal(signal.SIGTERM)
            eventually(lambda: "Handling signal: term" in (tmp_path / "log").read_text())
            worker = int(ask_pid(tmp_path))
            os.kill(worker, signal.SIGQUIT)
            assert process.wait(LIMIT) == 0
            assert sock.recv(100) == b""


def ask_pid(folder):
    """The worker's number, from gunicorn's log."""
    (line,) = [x for x in (folder / "log").read_text().splitlines() if "Booting worker" in x]
    return line.rpartition(" ")[2]


def test_limits_of_gunicorn_hold(tmp_path):
    options = ("--limit-request-line", "50", "--limit-request-fields", "3", "--keep-alive", "0")
    with gunicorn(tmp_path, *options) as (_, port):
        assert ask(port)[0] == 200
        assert ask(port, "/" + "a" * 50)[0] == 414
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        client.request("GET", "/", headers={f"X-{n}": "y" for n in range(4)})
        assert client.getresponse().status == 431
        client.request("GET", "/")
        response = client.getresponse()
        assert response.status == 200
        assert response.will_close
        client.close()


def test_missing_gunicorn_is_said():
    code = "import sys; sys.modules['gunicorn'] = None\nimport gort.gunicorn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert 'pip install "gort[gunicorn]"' in done.stderr
