"""Database servers for tests, kept by a process of their own that ends them for sure.

`python server_keeper.py` is that process, and needs nothing but the standard library: it listens on
a port of 127.0.0.1, which it prints, and does what its clients ask in lines of JSON.
A server has its data in a temporary folder and an unprivileged user where the keeper is root; when
its client's connection ends, it is killed and its data goes. The keeper ends when its standard input
does, and the kernel ends the servers with it. `Keeper` is the client. It starts a keeper of its own,
or goes to the one that the variable SERVER_KEEPER names ("host:port"): tests that run in another
root directory have no server programs there (tools/matrix.py).
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = {"postgresql": "postgresql", "redis": "redis-server", "mariadb": "mariadb-server"}
LIMIT = 40.0  # seconds for a server to begin or to end
PR_SET_PDEATHSIG = 1


class Missing(Exception):
    """There is no such server on this machine."""


def program(name: str, *patterns: str) -> str:
    """The path of a server's program."""
    found = [path for pattern in patterns for path in sorted(glob.glob(pattern), reverse=True)]
    path = next(iter(found), None) or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        raise Missing(name)
    return path


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Server:
    """One server: its folder, its port, its process while it runs."""

    #: What it writes to its log once it serves.
    ready = ""
    #: What ends it at once and all that belongs to it; no process can survive it.
    kill_signal = signal.SIGKILL

    def __init__(self, program: str, pem: str) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="gort-server-"))
        self.user = None
        if os.geteuid() == 0:
            self.user = "nobody"
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        try:
            self.log = self.folder / "log"
            self.prepare(pem)
            self.start()
        except BaseException:
            self.end()
            raise

    def prepare(self, pem: str) -> None:
        """Make the data that it starts with."""

    def command(self) -> list[str]:
        """The command that runs it."""
        raise NotImplementedError

    def own(self, name: str, text: str) -> Path:
        """A file that only its user may read."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        if self.user:
            os.chown(path, pwd.getpwnam(self.user).pw_uid, -1)
        return path

    def popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command as its user, which the kernel kills when this process ends."""
        libc, parent = ctypes.CDLL(None), os.getpid()

        def dies_with_us() -> None:
            libc.prctl(PR_SET_PDEATHSIG, int(self.kill_signal))
            if os.getppid() != parent:
                os._exit(1)

        with open(self.log, "ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                user=self.user, extra_groups=[] if self.user else None,
                preexec_fn=dies_with_us,
            )  # fmt: skip

    def start(self) -> None:
        """Run it; return once it serves."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.process = self.popen(self.command())
        end = time.monotonic() + LIMIT
        while self.ready.encode() not in self.log.read_bytes()[offset:]:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.program}: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)  # another program's log

    def kill(self) -> None:
        """End it without a word to its clients."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(self.kill_signal)
            self.process.wait(LIMIT)
            self.process = None

    def pause(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSql(Server):
    """PostgreSQL: user gort, database postgres, no password; TLS where a client asks for it."""

    ready = "database system is ready to accept connections"
    kill_signal = signal.SIGQUIT  # what its own processes get from it, too

    def prepare(self, pem: str) -> None:
        initdb = str(Path(self.program).with_name("initdb"))
        command = [initdb, "-D", "data", "-U", "gort", "-A", "trust", "-N", "--locale=C"]
        if self.popen([*command, "-E", "UTF8"]).wait(LIMIT):
            raise RuntimeError(self.log.read_text()[-2000:])
        self.pem = self.own("pem", pem)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "",
            "max_connections": 600, "shared_buffers": "16MB", "fsync": "off",
            "ssl": "on", "ssl_cert_file": self.pem, "ssl_key_file": self.pem,
            "autovacuum": "off",
        }  # fmt: skip
        options = [part for item in settings.items() for part in ("-c", "{}={}".format(*item))]
        return [self.program, "-D", "data", *options]


class Redis(Server):
    """Redis: no password, nothing on disk."""

    ready = "Ready to accept connections"

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "maxclients": 2000}
        return [self.program, *(p for o in options.items() for p in (f"--{o[0]}", str(o[1])))]


class MariaDb(Server):
    """MariaDB: whoever comes may do everything; an empty database gort; TLS where a client asks for it."""

    ready = "ready for connections"

    def prepare(self, pem: str) -> None:
        self.pem = self.own("pem", pem)
        (self.folder / "gort").mkdir()
        if self.user:
            os.chown(self.folder / "gort", pwd.getpwnam(self.user).pw_uid, -1)

    def command(self) -> list[str]:
        return [
            self.program, "--no-defaults", f"--datadir={self.folder}", f"--port={self.port}",
            "--bind-address=127.0.0.1", f"--socket={self.folder}/socket", "--skip-grant-tables",
            "--innodb-buffer-pool-size=16M", "--max-connections=600",
            "--innodb-flush-log-at-trx-commit=0", f"--pid-file={self.folder}/pid",
            f"--ssl-cert={self.pem}", f"--ssl-key={self.pem}",
        ]  # fmt: skip


def find(kind: str) -> tuple[type[Server], str]:
    """The class of a kind of server and the program of it."""
    if kind == "postgresql":
        return PostgreSql, program("postgres", "/usr/lib/postgresql/*/bin/postgres")
    if kind == "redis":
        return Redis, program("redis-server")
    return MariaDb, program("mariadbd")


def answer(servers: dict[str, Server], asked: dict[str, str]) -> dict[str, object]:
    """Do one thing that a client asks."""
    kind, what = asked["kind"], asked["do"]
    try:
        if kind not in servers:
            made, path = find(kind)
            try:
                servers[kind] = made(path, asked["pem"])
            except Exception as error:  # as a sandbox may have it
                return {"missing": f"{path} is here, and does not run: {error!r}"}
        elif what != "start":
            getattr(servers[kind], what)()
        elif servers[kind].process is None:
            servers[kind].start()
    except Missing as missing:
        return {"missing": f"no {missing} here: apt-get install {PACKAGES[kind]}"}
    except Exception as error:  # it is the client's test that fails
        return {"error": repr(error)}
    return {"port": servers[kind].port}


def keep() -> None:
    """Serve clients until standard input ends; what each started ends with its connection."""
    clients: dict[socket.socket, dict[str, Server]] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())  # the servers' data goes, too
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        try:
            while sys.stdin not in (ready := readable(listener, *clients)):
                for sock in ready:
                    if sock is listener:
                        clients[listener.accept()[0]] = {}
                    elif not serve(sock, clients[sock]):
                        sock.close()
                        end(clients.pop(sock))
        finally:
            for servers in clients.values():
                end(servers)


def readable(*sockets: socket.socket) -> list[object]:
    """Wait until there is something at one, or standard input ends; those at which there is."""
    return select.select([sys.stdin, *sockets], [], [])[0]


def serve(sock: socket.socket, servers: dict[str, Server]) -> bool:
    """Do what a client asks next; False: it has ended."""
    line = sock.recv(65536)  # one request at a time, in one piece
    if line:
        sock.sendall(json.dumps(answer(servers, json.loads(line))).encode() + b"\n")
    return bool(line)


def end(servers: dict[str, Server]) -> None:
    """End a client's servers."""
    for server in servers.values():
        server.end()


class Keeper:
    """The tests' side. Servers that it started end with it, or with this process."""

    def __init__(self) -> None:
        address = os.environ.get("SERVER_KEEPER")
        self._process = None
        if address is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._process.stdout is not None
            address = f"127.0.0.1:{self._process.stdout.readline().strip()}"
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=2 * LIMIT)
        self._lines = self._socket.makefile("r")

    def ask(self, kind: str, do: str, pem: str = "") -> dict[str, object]:
        """Have the keeper do something with a server; its answer."""
        self._socket.sendall(json.dumps({"kind": kind, "do": do, "pem": pem}).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise RuntimeError("the keeper of the servers has ended")
        found: dict[str, object] = json.loads(line)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def close(self) -> None:
        """End the servers."""
        self._lines.close()
        self._socket.close()
        if self._process is not None:
            self._process.communicate()  # closes its standard input


if __name__ == "__main__":
    keep()
