"""Packets: UDP and Unix datagrams. The hot methods are compiled (rust/py/src/entry/net)."""

from __future__ import annotations

import os
import socket

from gort import _core
from gort._closing import Closing
from gort._typing import TYPE_CHECKING
from gort.net._address import PACKETS, check_network
from gort.net._errors import address_text
from gort.net._listen import bound

if TYPE_CHECKING:
    from gort.net._address import AddressLike


class PacketConn(_core._Packets, Closing):
    """A socket for packets, made by listen_packet() or, for one other end, by dial().

    - `read_from(n)` gives the next packet and who sent it, `read(n)` the packet alone; what is
      longer than n bytes is cut off and lost. `readinto(buffer)` says how long it is there.
    - `write_to(data, address)` sends a packet; to (host, port) with a numeric host, or a path as
      bytes. `write(data)` sends one where dial() said to.
    - They park until it can go on, and take `timeout` (s) and `ctx`; deadlines and closing are as
      for a Conn.

    Example:
        >>> import gort.net
        >>> with gort.net.listen_packet("udp", "127.0.0.1:0") as server:
        ...     with gort.net.dial("udp", server.local_addr()) as client:
        ...         client.write(b"ping")
        ...         data, sender = server.read_from(100)
        ...         server.write_to(data.upper(), sender)
        ...         client.read(100)
        b'PING'
    """

    __slots__ = ("_path",)

    _path: str | None

    def __init__(self, fd: int, network: str) -> None:
        """Take the descriptor of a socket over."""
        self._path = None

    def close(self) -> None:
        """Close it; whoever waits gets Closed. The file of a Unix socket is removed."""
        path = getattr(self, "_path", None)  # dial() makes one without __init__
        if path is not None and not self.closed:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        super().close()

    def __repr__(self) -> str:
        """Say which socket it is."""
        ends = address_text(self.local_addr())
        if (remote := self.remote_addr()) is not None:
            ends += f"->{address_text(remote)}"
        return f"<gort.net.PacketConn {self.network} {ends}{' closed' if self.closed else ''}>"


_core._net_own(PacketConn)


def listen_packet(network: str, address: AddressLike, *, reuse_port: bool = False) -> PacketConn:
    """Give a socket for packets that come to an address; parks only while a name is looked up.

    Args:
        network: "udp", "udp4", "udp6" or "unixgram".
        address: as for listen().
        reuse_port: other sockets may have the same port (SO_REUSEPORT).

    Raises:
        ValueError: there is no such network, or it is no address.
        OSError: it cannot be had.

    Example:
        >>> import gort.net
        >>> with gort.net.listen_packet("udp", "127.0.0.1:0") as conn:
        ...     conn.network
        'udp'
    """
    check_network(network, PACKETS)
    with bound(network, address, reuse_port) as sock:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        name = sock.getsockname()
        conn = PacketConn(sock.fileno(), network)
        sock.detach()
    if sock.family == socket.AF_UNIX and isinstance(name, str) and name:
        conn._path = name
    return conn
