"""Listener: waiting for connections, one by one or by a loop that starts a goroutine for each."""

from __future__ import annotations

import errno
import os
import socket

from gort import _core
from gort._closing import Closing
from gort._core import Semaphore, WaitGroup, sleep, spawn
from gort._typing import TYPE_CHECKING
from gort.net._address import (
    STREAMS,
    check_network,
    host_and_port,
    is_unix,
    kind_of,
    suits,
    unix_path,
    zone_number,
)
from gort.net._conn import Conn
from gort.net._dns import lookup_port, resolve
from gort.net._errors import Closed, address_text, described, os_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from gort._core import Context
    from gort.net._address import AddressLike

#: What a server outlives: there are too many descriptors, or too little memory, for now.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: Seconds between tries then: the first, doubled each time, and the last (net/http.Server.Serve).
FIRST_PAUSE, LAST_PAUSE = 0.005, 1.0
#: What the kernel takes for the length of a queue at most (Go: net/sock_linux.go).
MOST_BACKLOG = (1 << 16) - 1


class Listener(_core._Listening, Closing):
    """Takes connections; made by listen(). `accept()` gives the next one as a Conn, and parks.

    A `for` loop accepts until the listener is closed. `local_addr()` says where it listens, with
    the port that the system chose for 0. Several goroutines may accept at the same time.
    `accept` takes `timeout` and `ctx`; `set_deadline(when)` ends waits as for a Conn.

    Example:
        >>> import gort.net
        >>> with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        ...     with gort.net.dial("tcp", listener.local_addr()) as client:
        ...         with listener.accept() as server:
        ...             server.remote_addr() == client.local_addr()
        True
    """

    __slots__ = ("_path",)

    _path: str | bytes | None

    def __init__(self, fd: int, network: str, made: type[Conn] = Conn) -> None:
        """Take the descriptor of a socket that listens over; accepted are objects of `made`."""
        self._path = None

    def close(self) -> None:
        """Close it; whoever accepts gets Closed. The file of a Unix socket is removed."""
        path, self._path = self._path, None
        if path is not None and not self.closed:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        super().close()

    def __iter__(self) -> Self:
        """Iterate over the connections until it is closed."""
        return self

    def __next__(self) -> Conn:
        """Accept the next connection; parks."""
        try:
            return self.accept()
        except Closed:
            raise StopIteration from None

    def serve(
        self,
        handler: Callable[[Conn], object],
        limit: int | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Call `handler(conn)` in a goroutine for each connection, until this is closed. Parks.

        A connection is closed when its handler returns. What a handler raises is reported through
        gort.excepthook and ends only that connection. When there are no descriptors left, or no
        memory, it pauses (5 ms, twice as long each time, at most 1 s) and goes on. Ends when all
        handlers have.

        Args:
            handler: what to call.
            limit: connections at the same time; others wait in the kernel's queue. None: no limit.
            ctx: a Context that ends it when it is done; the listener stays open.

        Raises:
            ValueError: limit is less than 1.
            ContextCanceled, DeadlineExceeded: ctx is done.
            OSError: accepting failed for a reason that does not go by.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        places = None if limit is None else Semaphore(limit)
        running = WaitGroup()
        pause = 0.0
        while True:
            if places is not None:
                places.acquire(1, None, ctx)
            try:
                conn = self.accept(None, ctx)
            except Closed:
                break
            except (OSError, MemoryError) as error:
                if not isinstance(error, MemoryError) and error.errno not in EXHAUSTED:
                    raise
                if places is not None:
                    places.release()
                pause = min(pause * 2 or FIRST_PAUSE, LAST_PAUSE)
                sleep(pause, ctx=ctx)
                continue
            pause = 0.0
            _start(handler, conn, places, running)
        running.wait(None, ctx)

    def __repr__(self) -> str:
        """Say where it listens."""
        where = address_text(self.local_addr())
        return f"<gort.net.Listener {self.network} {where}{' closed' if self.closed else ''}>"


_core._net_own(Listener)


class _Serving:
    """One connection of serve(): the body of its goroutine. Let go of unstarted, it ends, too."""

    __slots__ = ("_conn", "_handler", "_is_over", "_places", "_running")

    def __init__(
        self,
        handler: Callable[[Conn], object],
        conn: Conn,
        places: Semaphore | None,
        running: WaitGroup,
    ) -> None:
        self._is_over = False
        self._handler, self._conn, self._places, self._running = handler, conn, places, running
        running.add(1)

    def __call__(self) -> None:
        try:
            self._handler(self._conn)
        finally:
            self.end()

    def end(self) -> None:
        """Close the connection and give its place to another."""
        if not self._is_over:
            self._is_over = True
            self._conn.close()
            if self._places is not None:
                self._places.release()
            self._running.done()

    def __del__(self) -> None:
        if hasattr(self, "_running"):
            self.end()


def _start(
    handler: Callable[[Conn], object],
    conn: Conn,
    places: Semaphore | None,
    running: WaitGroup,
) -> None:
    """Start the goroutine of a connection; without memory for one, the connection is closed."""
    try:
        serving = _Serving(handler, conn, places, running)
    except MemoryError:
        conn.close()
        if places is not None:
            places.release()
        return
    try:
        spawn(serving, name="serve")
    except MemoryError:
        serving.end()


def _backlog() -> int:
    """Give the length of the queue that the system allows, as Go takes it."""
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return min(int(file.read()), MOST_BACKLOG)
    except (OSError, ValueError):
        return socket.SOMAXCONN


def _has_ipv6() -> bool:
    """Whether the system speaks IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def where_to_bind(
    network: str, address: AddressLike, timeout: float | None, ctx: Context | None
) -> tuple[int, Any, bool]:
    """Give family, address and whether IPv4 comes in by IPv6 as well, for listening there."""
    if is_unix(network):
        path = unix_path(address)
        return socket.AF_UNIX, b"\0" + path[1:] if path[:1] == b"@" else path, False
    host, service = host_and_port(address)
    port = lookup_port(network, service)
    if not host:
        if not network.endswith("4") and _has_ipv6():
            return socket.AF_INET6, ("::", port), not network.endswith("6")
        return socket.AF_INET, ("0.0.0.0", port), False  # noqa: S104 - what was asked for
    hosts = [found for found in resolve(host, timeout, ctx) if suits(network, found)]
    if not hosts:
        raise ValueError(f"listen {network} {address_text(address)}: no suitable address")
    chosen = next((found for found in hosts if ":" not in found), hosts[0])
    if ":" not in chosen:
        return socket.AF_INET, (chosen, port), False
    plain, _, zone = zone_number(chosen).partition("%")
    return socket.AF_INET6, (plain, port, 0, int(zone or 0)), False


def bound(
    network: str,
    address: AddressLike,
    reuse_port: bool,
    timeout: float | None = None,
    ctx: Context | None = None,
) -> socket.socket:
    """Give a socket of the system that is bound there."""
    family, where, takes_both = where_to_bind(network, address, timeout, ctx)
    sock = socket.socket(family, kind_of(network))
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_both)
        if family != socket.AF_UNIX and network in STREAMS:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        before = described(
            "listen", network, None, where if family == socket.AF_UNIX else where[:2]
        )
        raise os_error(error.errno or errno.EINVAL, before) from None
    except BaseException:
        sock.close()
        raise
    return sock


def listen(
    network: str,
    address: AddressLike,
    *,
    backlog: int | None = None,
    reuse_port: bool = False,
) -> Listener:
    """Listen for connections; parks only while a name is looked up.

    TCP connections have what Go gives them: no delay of small packets, signs of life asked for
    after 15 s of silence.

    Args:
        network: "tcp", "tcp4", "tcp6" or "unix".
        address: "host:port", (host, port), or a path ("@name": an abstract one). An empty host is
            every address of this machine, port 0 one that is free.
        backlog: how many connections may wait to be accepted; None: what the system allows.
        reuse_port: other sockets may listen at the same port, and share what comes (SO_REUSEPORT).

    Raises:
        ValueError: there is no such network, or it is no address.
        OSError: it cannot be had; "listen tcp 127.0.0.1:80: permission denied".

    Example:
        >>> import gort.net
        >>> with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        ...     host, port = listener.local_addr()
        >>> host, port > 0
        ('127.0.0.1', True)
    """
    check_network(network, STREAMS)
    with bound(network, address, reuse_port) as sock:
        if sock.family != socket.AF_UNIX:
            for option, value in (
                (socket.TCP_NODELAY, 1),
                (socket.TCP_KEEPIDLE, 15),
                (socket.TCP_KEEPINTVL, 15),
                (socket.TCP_KEEPCNT, 9),
            ):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)  # connections inherit it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.listen(_backlog() if backlog is None else backlog)
        name = sock.getsockname()
        listener = Listener(sock.fileno(), network, Conn)
        sock.detach()
    if sock.family == socket.AF_UNIX and isinstance(name, str):
        listener._path = name
    return listener
