"""Workloads of a server process under load from another process, each on CPUs of its own.

A program names the servers it has and calls `main`: `prog serve NAME` binds, prints its port and
serves until it is killed; `prog NAME N` measures that from outside, with the load of load/load.c on
the last CPU and the server on all others. CPU time, memory and threads are the server's alone.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import harness

HERE = Path(__file__).resolve().parent
ACTIVE = 100  # connections with a trip under way, in echo and idle
BYTES = 1024  # of one message of echo and idle
BODY = 120  # bytes of the body of http
# Bytes that a server asks for at once: the messages of `prog serve net_16k` in one piece.
RECV = 1 << 14 if sys.argv[-1].endswith("16k") else 4096
KEPT = 2_000  # connections of http
SPARE_FILES = 200  # descriptors of a process beside its connections
HTTP_SERVER = str(HERE / "load" / "http_server.py")
TLS_LOAD = str(HERE / "load" / "tls_load.py")
PAIR = str(HERE / "load" / "localhost.pem")  # key and certificate, for tests, valid to 2120
AT_ONCE = 8  # connections that make a handshake at a time
PACKET = 2048  # bytes that a server of packets asks for at once
IDLE_TRIPS = 30_000
READY_SECONDS = 30


def listener() -> socket.socket:
    """A listening socket on a free port of this machine, its port told on stdout."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    tell(sock)
    return sock


def tell(sock: Any) -> None:
    """Print the port that is listened on: the load may begin."""
    print(sock.getsockname()[1], flush=True)


def talk(conn: Any) -> None:
    """Echo until the other side ends: the same code for every kind of socket."""
    with conn:
        while data := conn.recv(RECV):
            conn.sendall(data)
            del data  # else it would be kept over the wait


def secured() -> ssl.SSLContext:
    """What a server needs for TLS. Each handshake is a whole one: no client brings a ticket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PAIR)
    return context


def talk_tls(sock: Any, context: Any) -> None:
    """Make the handshake and echo, over sockets and contexts of the module ssl or like it."""
    try:
        # As asyncio and Go have it: an answer would wait for the acknowledgement of the tickets.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk(context.wrap_socket(sock, server_side=True))
    except OSError:
        sock.close()


def talk_packets(sock: Any) -> None:
    """Send each packet back: the same code for every kind of socket."""
    while True:
        data, sender = sock.recvfrom(PACKET)
        sock.sendto(data, sender)


def packets() -> socket.socket:
    """A socket for packets on a free port of this machine, its port told on stdout."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    tell(sock)
    return sock


def load_program() -> str:
    """Compile load/load.c unless a newer program is there, and give its path."""
    given = os.environ.get("BENCH_LOAD")
    if given:
        return given
    source, program = HERE / "load" / "load.c", HERE / ".venv-bench" / "load"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("no C compiler for benches/load/load.c")
    program.parent.mkdir(exist_ok=True)
    fresh = program.with_name(f"load.{os.getpid()}")
    built = subprocess.run(
        [compiler, "-O2", "-o", str(fresh), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise RuntimeError(f"{compiler} load.c: {built.stderr.strip()[-200:]}")
    fresh.replace(program)
    return str(program)


def more_files(wanted: int) -> int:
    """Raise the limit of open files for this process and its children; how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return wanted if soft == resource.RLIM_INFINITY else soft


def cpus() -> tuple[set[int], set[int]]:
    """The CPUs for the server and the one for the load: the same where there is only one."""
    known = sorted(os.sched_getaffinity(0))
    return (set(known[:-1]) or set(known)), {known[-1]}


class Server:
    """A server process on its CPUs: its CPU time, memory and threads, seen from outside."""

    def __init__(self, command: list[str], on: set[int]) -> None:
        """Start it and wait for its port."""
        os.sched_setaffinity(0, on)  # inherited, so that its first thread is there from the start
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        signal.alarm(READY_SECONDS)
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        signal.alarm(0)
        if not port.isdigit():
            sys.exit(f"no port from {' '.join(command)}")
        self.port = int(port)
        self._clock = (~self.process.pid << 3) | 2  # CPUCLOCK_SCHED: what getrusage adds up

    def cpu_ns(self) -> int:
        """User and system time of all its threads."""
        return time.clock_gettime_ns(self._clock)

    def _status(self, *names: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        pairs = (line.split(":") for line in lines)
        return sum(int(value.split()[0]) for name, value in pairs if name in names)

    def memory_bytes(self) -> int:
        """Resident memory with page tables."""
        return self._status("VmRSS", "VmPTE") * 1024

    def threads(self) -> int:
        """OS threads there are now."""
        return self._status("Threads")

    def end(self) -> None:
        """Kill it; it must have lived until now."""
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        if code is not None:
            sys.exit(f"the server ended with code {code}")


class Load:
    """The load process on its CPU; every command waits for its answer."""

    def __init__(self, kind: str, port: int, size: int, on: set[int]) -> None:
        """Start it."""
        os.sched_setaffinity(0, on)
        program = [sys.executable, TLS_LOAD] if kind == "tls" else [load_program(), kind]
        self.process = subprocess.Popen(
            [*program, str(port), str(size)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, command: str) -> dict[str, Any]:
        """Do one command of load/load.c; its failure ends this program too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"load: code {self.process.wait()} at {command!r}, see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Let it end; it must have found nothing wrong."""
        self.process.communicate()
        harness.check(self.process.returncode, 0)


def _echo(server: Server, load: Load, n: int) -> dict[str, float]:
    """CPU time of the server for a round trip."""
    load.ask(f"open {ACTIVE}")
    load.ask(f"trips {max(n // 10, ACTIVE)} {ACTIVE}")
    before = server.cpu_ns()
    found = load.ask(f"trips {n} {ACTIVE}")
    spent = server.cpu_ns() - before
    threads = server.threads()
    load.ask("check")
    return {
        "ns_per_op": spent / n,
        "per_second": n / found["ns"] * 1e9,
        "p99_ms": found["p99_ns"] / 1e6,
        "os_threads": threads,
    }


def _idle(server: Server, load: Load, n: int) -> dict[str, float]:
    """Memory of a connection that waits in recv, and p99 of those beside it that do not."""
    load.ask(f"open {ACTIVE}")
    load.ask(f"trips {IDLE_TRIPS // 10} {ACTIVE}")
    low = server.memory_bytes()
    load.ask(f"open {n}")
    high = server.memory_bytes()
    load.ask(f"trips {IDLE_TRIPS // 10} {ACTIVE}")
    found = load.ask(f"trips {IDLE_TRIPS} {ACTIVE}")
    threads = server.threads()
    harness.check(load.ask("check"), {"checked": n + ACTIVE})
    return {
        "ns_per_op": found["p99_ns"],
        "bytes": harness.slope(low, high, n),
        "resident_mb": high / 1e6,
        "per_second": IDLE_TRIPS / found["ns"] * 1e9,
        "os_threads": threads,
        "n": n,
    }


def _http(server: Server, load: Load, n: int) -> dict[str, float]:
    """Time of a request, and p99, with KEPT connections that all wait for an answer."""
    load.ask(f"open {KEPT}")
    load.ask(f"trips {max(n // 10, KEPT)} {KEPT}")
    before = server.cpu_ns()
    found = load.ask(f"trips {n} {KEPT}")
    spent = server.cpu_ns() - before
    threads = server.threads()
    harness.check(load.ask("check"), {"checked": KEPT})
    return {
        "ns_per_op": found["ns"] / n,
        "per_second": n / found["ns"] * 1e9,
        "p99_ms": found["p99_ns"] / 1e6,
        "cpu_ns": spent / n,
        "os_threads": threads,
    }


def _handshakes(server: Server, load: Load, n: int) -> dict[str, float]:
    """CPU time of the server for a connection: handshake, one trip, end."""
    load.ask(f"churn {max(n // 10, AT_ONCE)} {AT_ONCE}")
    before = server.cpu_ns()
    found = load.ask(f"churn {n} {AT_ONCE}")
    spent = server.cpu_ns() - before
    return {
        "ns_per_op": spent / n,
        "per_second": n / found["ns"] * 1e9,
        "p99_ms": found["p99_ns"] / 1e6,
        "os_threads": server.threads(),
        "load_cpu": found["cpu_ns"] / found["ns"],  # near 1: it is the load that is measured
    }


_KINDS: dict[str, tuple[str, int, Callable[[Server, Load, int], dict[str, float]]]] = {
    "echo": ("echo", BYTES, _echo),
    "echo_64": ("echo", 64, _echo),
    "echo_16k": ("echo", 16 << 10, _echo),
    "net_64": ("echo", 64, _echo),
    "net_16k": ("echo", 16 << 10, _echo),
    "idle": ("echo", BYTES, _idle),
    "net_idle": ("echo", BYTES, _idle),
    "udp": ("udp", 64, _echo),
    "tls": ("tls", 64, _handshakes),
    "net_tls": ("tls", 64, _handshakes),
    "http_2000": ("http", BODY, _http),
}
SERVED = tuple(_KINDS)
#: Echo servers: by plain sockets or streams, and by what an implementation has that is fastest.
PLAIN = ("echo", "echo_64", "echo_16k", "idle")
FASTEST = ("net_64", "net_16k", "net_idle")
#: Of these the programs of group net are, and more.
NET = (*FASTEST, "udp", "tls", "net_tls")


def measure(command: list[str], name: str, n: int) -> None:
    """Measure the server that `command` starts and print the line of the workload."""
    kind, size, work = _KINDS[name]
    is_idle = name.endswith("idle")
    connections = n + ACTIVE if is_idle else {"http_2000": KEPT}.get(name, ACTIVE)
    files = more_files(connections + SPARE_FILES)
    if files < connections + SPARE_FILES:
        if not is_idle:
            sys.exit(f"{connections + SPARE_FILES} open files are needed, the limit is {files}")
        n = files - SPARE_FILES - ACTIVE
        print(f"idle: {n} connections only, the limit is {files} open files", file=sys.stderr)
    os.environ["BENCH_PAIR"] = PAIR  # for Go's program
    for_server, for_load = cpus()
    server = Server(command, for_server)
    try:
        load = Load(kind, server.port, size, for_load)
        try:
            found = work(server, load, n)
            load.end()
        finally:
            load.process.kill()
    finally:
        server.end()
    print(json.dumps({"workload": name, "n": n, **found}))


def main(
    workloads: Mapping[str, Callable[[int], int | harness.Figures]],
    servers: Mapping[str, Callable[[], None]],
) -> None:
    """`prog serve NAME`, and what harness.main does, for servers too."""
    args = sys.argv[1:]
    if args == ["--list"]:
        print(" ".join([*workloads, *servers]))
    elif args[:1] == ["serve"] and args[1] in servers:
        servers[args[1]]()
    elif args and args[0] in servers:
        measure([sys.executable, sys.argv[0], "serve", args[0]], args[0], int(args[1]))
    else:
        harness.main(workloads)
