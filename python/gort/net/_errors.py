"""Errors of gort.net: OSErrors whose text says operation, network and addresses, as Go's OpError.

The compiled part asks here for the exception to raise. An errno decides about the class, as
everywhere in Python: ConnectionRefusedError, BrokenPipeError, TimeoutError and so on.
"""

from __future__ import annotations

import errno
import os

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from gort._core import _Listening, _Packets, _Stream

    Address = tuple[str, int] | str

#: What the compiled part says in place of an errno.
DEADLINE_PASSED = -1
CLOSED = -2


class Closed(OSError):
    """The connection or listener was closed: before the call, or while it waited.

    Example:
        >>> import gort.net
        >>> listener = gort.net.listen("tcp", "127.0.0.1:0")
        >>> listener.close()
        >>> try:
        ...     listener.accept()
        ... except gort.net.Closed:
        ...     print("closed")
        closed
    """


class UnexpectedEOF(EOFError):
    """The other end closed within what was to be read; what there was stays readable.

    `received` is how many bytes of `wanted` came.
    """

    def __init__(self, text: str, received: int = 0, wanted: int = 0) -> None:
        """Say `text`."""
        super().__init__(text)
        self.received = received
        self.wanted = wanted


def address_text(address: Any) -> str:
    """Give an address as Go writes it: host:port, [host]:port, or the path."""
    if isinstance(address, tuple):
        host = address[0]
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    return os.fsdecode(address) if isinstance(address, bytes) else str(address or "")


def described(op: str, network: str, source: Any, to: Any) -> str:
    """Give the text before the reason: operation, network, source->to."""
    ends = "->".join(filter(None, (address_text(source), address_text(to))))
    return f"{op} {network} {ends}".rstrip()


def os_error(number: int, before: str) -> OSError:
    """Give the OSError of an errno, with the system's words in Go's spelling."""
    words = os.strerror(number)
    return OSError(number, f"{before}: {words[:1].lower()}{words[1:]}")


def failure(
    op: str, sock: _Stream | _Listening | _Packets, number: int, to: Address | bytes | None
) -> OSError:
    """Give the exception for an errno, or one of the numbers above, of an operation of `sock`."""
    if to is None:
        source, to = sock.local_addr(), sock.remote_addr()
    else:
        source = None
    before = described(op, sock.network, source, to)
    if number == DEADLINE_PASSED:
        return TimeoutError(f"{before}: i/o timeout")
    if number == CLOSED:
        return Closed(errno.EBADF, f"{before}: use of closed network connection")
    return os_error(number, before)


def ended(sock: _Stream, received: int, wanted: int) -> UnexpectedEOF:
    """Give the exception for a stream that ended within what was to be read."""
    before = described("read", sock.network, sock.local_addr(), sock.remote_addr())
    return UnexpectedEOF(
        f"{before}: unexpected EOF, {received} of {wanted} bytes", received, wanted
    )
