"""From sockets of the standard library to those of gort.net."""

from __future__ import annotations

import socket

from gort._typing import TYPE_CHECKING
from gort.net._conn import Conn
from gort.net._listen import Listener
from gort.net._packet import PacketConn

if TYPE_CHECKING:
    from typing import Final

NAMES: Final = {
    (socket.AF_UNIX, socket.SOCK_STREAM): "unix",
    (socket.AF_UNIX, socket.SOCK_DGRAM): "unixgram",
    (socket.AF_INET, socket.SOCK_STREAM): "tcp",
    (socket.AF_INET6, socket.SOCK_STREAM): "tcp",
    (socket.AF_INET, socket.SOCK_DGRAM): "udp",
    (socket.AF_INET6, socket.SOCK_DGRAM): "udp",
}


def from_socket(sock: socket.socket) -> Conn | Listener | PacketConn:
    """Take over a socket of the standard library, which is detached; never parks.

    Args:
        sock: a connection, a listener or a socket for packets.

    Returns:
        A Conn, a Listener or a PacketConn.

    Raises:
        ValueError: it is of another family or kind.

    Example:
        >>> import socket, gort.net
        >>> a, b = (gort.net.from_socket(s) for s in socket.socketpair())
        >>> with a, b:
        ...     a.write(b"hello")
        ...     b.read(100)
        b'hello'
    """
    network = NAMES.get((sock.family, socket.SocketKind(sock.type & ~socket.SOCK_NONBLOCK)))
    if network is None:
        raise ValueError(f"a stream or packets over IP or Unix sockets are expected, not {sock!r}")
    taken: Conn | Listener | PacketConn
    if network in ("udp", "unixgram"):
        taken = PacketConn(sock.fileno(), network)
    elif sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        taken = Listener(sock.fileno(), network, Conn)
    else:
        taken = Conn(sock.fileno(), network)
    sock.detach()
    return taken
