"""gort.net: connections, listeners, packets, TLS and names, as Go's net package has them.

Everything here parks goroutines, and blocks threads that are none. The hot paths are compiled: a
read or a write tries first, parks in the poller when there is nothing to do, and tries again, with
no Python frame in between (docs/net.md).

Example:
    >>> import gort, gort.net
    >>> listener = gort.net.listen("tcp", "127.0.0.1:0")
    >>> def echo(conn):
    ...     while data := conn.read(4096):
    ...         conn.write(data)
    >>> g = gort.go(listener.serve, echo)
    >>> with gort.net.dial("tcp", listener.local_addr()) as conn:
    ...     conn.write(b"hello")
    ...     conn.read_exact(5)
    b'hello'
    >>> listener.close()
    >>> g.join()
"""

from __future__ import annotations

from gort._typing import TYPE_CHECKING
from gort.net._address import join_host_port, split_host_port
from gort.net._conn import Conn
from gort.net._dial import dial
from gort.net._dns import DNSError, Resolver, lookup_addr, lookup_host, lookup_port
from gort.net._errors import Closed, UnexpectedEOF
from gort.net._listen import Listener, listen
from gort.net._packet import PacketConn, listen_packet
from gort.net._sockets import from_socket

if TYPE_CHECKING:
    from typing import Any

    from gort.net._tls import TLSConn, TLSListener, dial_tls, listen_tls

__all__ = [
    "Closed",
    "Conn",
    "DNSError",
    "Listener",
    "PacketConn",
    "Resolver",
    "TLSConn",
    "TLSListener",
    "UnexpectedEOF",
    "dial",
    "dial_tls",
    "from_socket",
    "join_host_port",
    "listen",
    "listen_packet",
    "listen_tls",
    "lookup_addr",
    "lookup_host",
    "lookup_port",
    "split_host_port",
]


def __getattr__(name: str) -> Any:
    """Import what needs `ssl`, which takes as long as all the rest, when somebody asks for it."""
    if name not in ("TLSConn", "TLSListener", "dial_tls", "listen_tls"):
        raise AttributeError(f"module 'gort.net' has no attribute {name!r}")
    from gort.net import _tls

    thing = globals()[name] = getattr(_tls, name)
    return thing
