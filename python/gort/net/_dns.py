"""The resolver: getaddrinfo and getnameinfo, asked by a goroutine of their own.

One question at a time is asked for each name (gort.singleflight), and an answer is kept for a
while. Who asks waits as long as he says; the question goes on without him, and its answer is there
for the next. Within a goroutine the call itself is answered at the libc boundary, or its OS thread
is handed off: either way nobody else waits.
"""

from __future__ import annotations

import socket

from gort._typing import TYPE_CHECKING
from gort.cache import ConcurrentCache
from gort.net._address import numeric_family
from gort.singleflight import Group

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gort._core import Context

__all__ = ["DNSError", "Resolver", "lookup_addr", "lookup_host", "lookup_port"]

#: Seconds that an answer is kept. getaddrinfo does not tell the TTL of what it found; nscd and
#: systemd-resolved, where they run, know it. Short enough for a service that moves.
TTL = 5.0
#: Names whose answers are kept.
NAMES = 1024


class DNSError(socket.gaierror):
    """A name or an address was not found, or nobody could be asked: "lookup host: ..."."""


class Resolver:
    """Looks up names, each once at a time, and keeps the answers for `ttl` seconds.

    Args:
        ttl: seconds; 0 keeps nothing. Errors are not kept.
        size: how many answers are kept.

    Example:
        >>> import gort.net
        >>> resolver = gort.net.Resolver(ttl=1)
        >>> resolver.lookup_host("127.0.0.1")
        ['127.0.0.1']
    """

    __slots__ = ("__weakref__", "_answers", "_group")

    def __init__(self, ttl: float = TTL, size: int = NAMES) -> None:
        """Begin with no answers."""
        if not ttl >= 0:
            raise ValueError("ttl must be a non-negative number of seconds")
        self._answers: ConcurrentCache[Any, Any] | None = (
            ConcurrentCache(size, ttl=ttl) if ttl > 0 else None
        )
        self._group: Group[Any, Any] = Group()

    def lookup_host(
        self, host: str, timeout: float | None = None, ctx: Context | None = None
    ) -> list[str]:
        """Give the addresses of a host, in the system's order of preference. Parks.

        Args:
            host: a name; an address is its own answer.
            timeout: seconds to wait at most; None: as long as the system does.
            ctx: a Context that ends the wait when it is done.

        Raises:
            DNSError: there is none.
            TimeoutError, ContextCanceled, DeadlineExceeded: it took too long.

        Example:
            >>> import gort.net
            >>> gort.net.Resolver().lookup_host("::1")
            ['::1']
        """
        if numeric_family(host):
            return [host]
        if not host:
            raise DNSError(socket.EAI_NONAME, "lookup : no such host")
        return list(self._ask(("host", host), _hosts, host, timeout, ctx))

    def lookup_addr(
        self, address: str, timeout: float | None = None, ctx: Context | None = None
    ) -> list[str]:
        """Give the names of an address. Parks.

        Args:
            address: numeric.
            timeout: as for lookup_host().
            ctx: as there.

        Raises:
            ValueError: it is no address.
            DNSError: it has no name.
            TimeoutError, ContextCanceled, DeadlineExceeded: it took too long.
        """
        if not numeric_family(address):
            raise ValueError(f"lookup {address}: unrecognized address")
        return list(self._ask(("addr", address), _names, address, timeout, ctx))

    def forget(self) -> None:
        """Forget all answers."""
        if self._answers is not None:
            self._answers.clear()

    def _ask(
        self,
        key: tuple[str, str],
        ask: Callable[[str], list[str]],
        name: str,
        timeout: float | None,
        ctx: Context | None,
    ) -> list[str]:
        """Give the answer to a question: one that is kept, or that of the goroutine that asks."""
        if self._answers is not None:
            answer, ok = self._answers.get(key)
            if ok:
                return answer  # type: ignore[return-value]
        chan = self._group.do_chan(key, self._asked, key, ask, name)
        try:
            value, error, _ = chan.recv(timeout, ctx)
        except TimeoutError as passed:
            if type(passed) is TimeoutError:
                raise TimeoutError(f"lookup {name}: i/o timeout") from None
            raise
        if error is None:
            return value  # type: ignore[no-any-return]
        if isinstance(error, OSError):
            number, words = error.args if len(error.args) == 2 else (error.errno, str(error))
            raise DNSError(number, f"lookup {name}: {words}")
        raise error

    def _asked(self, key: tuple[str, str], ask: Callable[[str], list[str]], name: str) -> list[str]:
        """Ask, and keep the answer."""
        answer = ask(name)
        if self._answers is not None:
            self._answers[key] = answer
        return answer


def _hosts(host: str) -> list[str]:
    """Ask the system for the addresses of a name."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _names(address: str) -> list[str]:
    """Ask the system for the name of an address."""
    return [socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]]


#: What the functions of the module, dial() and listen() ask.
DEFAULT = Resolver()


def lookup_host(host: str, timeout: float | None = None, ctx: Context | None = None) -> list[str]:
    """Give the addresses of a host, by a Resolver that all share: see Resolver.lookup_host().

    Example:
        >>> import gort.net
        >>> gort.net.lookup_host("127.0.0.1")
        ['127.0.0.1']
    """
    return DEFAULT.lookup_host(host, timeout, ctx)


def lookup_addr(
    address: str, timeout: float | None = None, ctx: Context | None = None
) -> list[str]:
    """Give the names of an address, by a Resolver that all share: see Resolver.lookup_addr().

    Example:
        >>> import gort.net
        >>> gort.net.lookup_addr("localhost")
        Traceback (most recent call last):
        ValueError: lookup localhost: unrecognized address
    """
    return DEFAULT.lookup_addr(address, timeout, ctx)


def lookup_port(network: str, service: str | int) -> int:
    """Give the port of a service ("http"), or a number in text or not as a number. Never parks.

    Args:
        network: "tcp" or "udp", also with the version of IP.
        service: its name or number; empty is 0.

    Raises:
        ValueError: the number is not from 0 to 65535.
        DNSError: there is no such service.

    Example:
        >>> import gort.net
        >>> gort.net.lookup_port("tcp", "8080")
        8080
    """
    if isinstance(service, str) and not service.lstrip("+-").isdecimal() and service:
        try:
            return socket.getservbyname(service, network[:3])
        except OSError:
            raise DNSError(
                socket.EAI_SERVICE, f"lookup {network}/{service}: unknown port"
            ) from None
    port = int(service or 0)
    if not 0 <= port <= 65535:
        raise ValueError(f"address {service}: invalid port")
    return port


def resolve(host: str, timeout: float | None, ctx: Context | None) -> list[str]:
    """Give the addresses for dial() and listen()."""
    return [host] if numeric_family(host) else DEFAULT.lookup_host(host, timeout, ctx)
