"""dial(): connecting to a name, by happy eyeballs where it has several addresses (RFC 8305)."""

from __future__ import annotations

import errno
import socket

from gort import _core
from gort._core import Chan, Int, sleep, spawn
from gort._deadline import left, until
from gort._typing import TYPE_CHECKING, overload
from gort.context import background, with_cancel
from gort.net._address import (
    PACKETS,
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
from gort.net._errors import described
from gort.net._packet import PacketConn

if TYPE_CHECKING:
    from typing import Any, Literal

    from gort._core import Context
    from gort.net._address import AddressLike

    Either = Conn | PacketConn
    Remote = tuple[str, int] | bytes

#: Seconds until the next address is tried beside those that have not answered: RFC 8305, section
#: 5, "Connection Attempt Delay", whose recommended value this is.
ATTEMPT_DELAY = 0.25
#: Go tries so many more times after the kernel connected a socket to itself (net/tcpsock_posix.go).
SELF_CONNECTS = 2
#: Seconds between tries while the queue of a Unix listener is full, of which no event tells.
FIRST_PAUSE, LAST_PAUSE = 0.0005, 0.05


def interleaved(hosts: list[str]) -> list[str]:
    """Order addresses so that the versions of IP take turns, the first one's first (section 4)."""
    first: list[str] = []
    other: list[str] = []
    for host in hosts:
        same = (":" in host) == (":" in hosts[0])
        (first if same else other).append(host)
    order = []
    while first or other:
        order += first[:1] + other[:1]
        del first[:1], other[:1]
    return order


def _connect(
    network: str,
    to: Remote,
    local: Remote | None,
    timeout: float | None,
    ctx: Context | None,
) -> Either:
    """Connect to one address."""
    made: type[Either] = Conn if network in STREAMS else PacketConn
    kind = kind_of(network)
    if isinstance(local, tuple) and not local[0]:  # any address of the same version of IP
        local = "::" if ":" in str(to[0]) else "0.0.0.0", local[1]  # noqa: S104
    conn: Either = _core._net_dial(made, network, kind, to, local, timeout, ctx)
    for _ in range(SELF_CONNECTS if network[:3] == "tcp" and local is None else 0):
        if conn.local_addr() != conn.remote_addr():
            break
        conn.close()
        conn = _core._net_dial(made, network, kind, to, local, timeout, ctx)
    return conn


def _connect_unix(
    network: str, path: bytes, local: Remote | None, timeout: float | None, ctx: Context | None
) -> Either:
    """Connect to a path; where the listener's queue is full, wait for room in it."""
    until_ns = until(timeout)
    pause = FIRST_PAUSE
    while True:
        try:
            return _connect(network, path, local, left(until_ns), ctx)
        except BlockingIOError:
            rest = left(until_ns)
            if rest is not None and rest <= 0:
                text = f"{described('dial', network, None, path)}: i/o timeout"
                raise TimeoutError(text) from None
            sleep(pause if rest is None else min(pause, rest), ctx=ctx)
            pause = min(pause * 2, LAST_PAUSE)


class _Race:
    """Attempts at several addresses, of which the first that succeeds wins."""

    __slots__ = ("_cancel", "_ctx", "_local", "_network", "_results", "_winners")

    def __init__(self, network: str, count: int, local: Remote | None, ctx: Context | None) -> None:
        self._network = network
        self._local = local
        self._results: Chan[tuple[Either | None, BaseException | None]] = Chan(count)
        self._winners = Int()
        self._ctx, self._cancel = with_cancel(background() if ctx is None else ctx)

    def attempt(self, to: Remote) -> None:
        """Body of an attempt's goroutine: give its outcome, unless another has won."""
        try:
            conn = _connect(self._network, to, self._local, None, self._ctx)
        except BaseException as error:
            self._results.try_send((None, error))
            if not isinstance(error, Exception):
                raise
            return
        if self._winners.add(1) == 1:
            self._results.try_send((conn, None))
        else:
            conn.close()

    def run(self, remotes: list[Remote], until_ns: int | None, ctx: Context | None) -> Either:
        """Begin one attempt after another until one succeeds or all have failed."""
        first: BaseException | None = None
        begun = failed = 0
        try:
            while failed < len(remotes):
                if begun < len(remotes):
                    spawn(self.attempt, (remotes[begun],), name="dial")
                    begun += 1
                rest = left(until_ns)
                delay = ATTEMPT_DELAY if begun < len(remotes) else rest
                wait = delay if rest is None or delay is None else min(delay, rest)
                try:
                    conn, error = self._results.recv(wait, ctx)
                except TimeoutError as passed:
                    if type(passed) is not TimeoutError or left(until_ns) == 0:
                        raise
                    continue
                if conn is not None:
                    return conn
                first = first or error
                failed += 1
            assert first is not None
            raise first
        except BaseException:
            self._abandon()
            raise
        finally:
            self._cancel()
            del first  # the traceback has this frame: a cycle

    def _abandon(self) -> None:
        """Nobody wants the winner any more: close it, if there is or will be one."""
        if self._winners.add(1) == 1:
            return
        while True:
            conn, _ = self._results.recv()
            if conn is not None:
                conn.close()
                return


@overload
def dial(
    network: Literal["tcp", "tcp4", "tcp6", "unix"],
    address: AddressLike,
    timeout: float | None = None,
    ctx: Context | None = None,
    *,
    local: AddressLike | None = None,
) -> Conn: ...
@overload
def dial(
    network: Literal["udp", "udp4", "udp6", "unixgram"],
    address: AddressLike,
    timeout: float | None = None,
    ctx: Context | None = None,
    *,
    local: AddressLike | None = None,
) -> PacketConn: ...
@overload
def dial(
    network: str,
    address: AddressLike,
    timeout: float | None = None,
    ctx: Context | None = None,
    *,
    local: AddressLike | None = None,
) -> Conn | PacketConn: ...
def dial(
    network: str,
    address: AddressLike,
    timeout: float | None = None,
    ctx: Context | None = None,
    *,
    local: AddressLike | None = None,
) -> Conn | PacketConn:
    """Connect to an address; parks until that is done.

    A name is looked up. If it has several addresses they are tried as RFC 8305 says: IPv6 and IPv4
    in turn, the next one as soon as one fails, and 250 ms after the last one that has not answered;
    the first that answers is taken.

    Args:
        network: "tcp", "udp" (each also with 4 or 6), "unix" or "unixgram".
        address: "host:port", (host, port) or a path ("@name": an abstract one). An empty host is
            this machine.
        timeout: seconds for all of it; None: as long as the system tries.
        ctx: a Context that ends it when it is done.
        local: where to connect from, as address, numeric; None: the system chooses.

    Returns:
        A Conn; for packets a PacketConn, which sends to and receives from that address only.

    Raises:
        ValueError: there is no such network, or it is no address.
        DNSError: the name has no address.
        OSError: "dial tcp 127.0.0.1:1: connection refused"; of several, what the first said.
        TimeoutError, ContextCanceled, DeadlineExceeded: it took too long.

    Example:
        >>> import gort.net
        >>> with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        ...     with gort.net.dial("tcp", listener.local_addr(), timeout=5) as conn:
        ...         conn.remote_addr() == listener.local_addr()
        True
    """
    check_network(network, (*STREAMS, *PACKETS))
    if is_unix(network):
        own = None if local is None else unix_path(local)
        return _connect_unix(network, unix_path(address), own, timeout, ctx)
    until_ns = until(timeout)
    host, service = host_and_port(address)
    port = lookup_port(network, service)
    own_address = None if local is None else _numeric(local)
    hosts = [found for found in _hosts(host, timeout, ctx) if suits(network, found)]
    if not hosts:
        raise OSError(errno.EADDRNOTAVAIL, f"dial {network} {host}: no suitable address")
    remotes: list[Remote] = [(zone_number(found), port) for found in interleaved(hosts)]
    if len(remotes) == 1:
        return _connect(network, remotes[0], own_address, left(until_ns), ctx)
    try:
        return _Race(network, len(remotes), own_address, ctx).run(remotes, until_ns, ctx)
    except TimeoutError as passed:
        if type(passed) is TimeoutError and not passed.errno:
            text = f"{described('dial', network, None, (host, port))}: i/o timeout"
            raise TimeoutError(text) from None
        raise


def _numeric(address: AddressLike) -> tuple[str, int]:
    """Give a local address, whose host may be empty, as the compiled part takes it."""
    host, service = host_and_port(address)
    return zone_number(host), lookup_port("tcp", service)


def _hosts(host: str, timeout: float | None, ctx: Context | None) -> list[Any]:
    """Give the addresses of a host; this machine's if it is empty."""
    if host:
        return resolve(host, timeout, ctx)
    return ["127.0.0.1", "::1"] if socket.has_ipv6 else ["127.0.0.1"]
