"""Addresses as text, "host:port" as Go has them, and which sockets a network's name stands for."""

from __future__ import annotations

import os
import socket

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

    #: What dial() and listen() take: "host:port", (host, port), or the path of a Unix socket.
    AddressLike = str | tuple[str, int] | bytes | os.PathLike[str]

STREAMS: Final = ("tcp", "tcp4", "tcp6", "unix")
PACKETS: Final = ("udp", "udp4", "udp6", "unixgram")


def split_host_port(address: str) -> tuple[str, str]:
    """Split "host:port", "host%zone:port", "[host]:port" or "[host%zone]:port" in two.

    Args:
        address: with a port, which may be a name or empty; IPv6 in brackets.

    Raises:
        ValueError: there is no port, or there are too many colons.

    Example:
        >>> import gort.net
        >>> gort.net.split_host_port("[::1]:http")
        ('::1', 'http')
    """
    last = address.rfind(":")
    if last < 0:
        raise ValueError(f"address {address}: missing port in address")
    opened, closed = 0, 0  # where brackets are not expected from
    if address.startswith("["):
        end = address.find("]")
        if end < 0:
            raise ValueError(f"address {address}: missing ']' in address")
        if end + 1 != last:
            what = "too many colons" if address[end + 1 : end + 2] == ":" else "missing port"
            raise ValueError(f"address {address}: {what} in address")
        host = address[1:end]
        opened, closed = 1, end + 1
    else:
        host = address[:last]
        if ":" in host:
            raise ValueError(f"address {address}: too many colons in address")
    for bracket, start in (("[", opened), ("]", closed)):
        if bracket in address[start:]:
            raise ValueError(f"address {address}: unexpected {bracket!r} in address")
    return host, address[last + 1 :]


def join_host_port(host: str, port: int | str) -> str:
    """Give "host:port", with brackets around a host with colons.

    Example:
        >>> import gort.net
        >>> gort.net.join_host_port("::1", 80)
        '[::1]:80'
    """
    return f"[{host}]:{port}" if ":" in host or "%" in host else f"{host}:{port}"


def host_and_port(address: AddressLike) -> tuple[str, str | int]:
    """Give the two parts of an address of TCP or UDP."""
    if isinstance(address, tuple):
        if len(address) < 2:
            raise ValueError(f"an address is (host, port), not {address!r}")
        return address[0], address[1]
    if not isinstance(address, str):
        raise TypeError(f"an address is 'host:port' or (host, port), not {address!r}")
    return split_host_port(address)


def unix_path(address: AddressLike) -> bytes:
    """Give the path of a Unix socket as bytes; "@name" is an abstract name."""
    if isinstance(address, tuple):
        raise TypeError(f"the address of a Unix socket is a path, not {address!r}")
    return os.fsencode(address)


def check_network(network: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless the network is one of those."""
    if network not in allowed:
        raise ValueError(f"unknown network {network!r}: one of {', '.join(allowed)} is expected")


def kind_of(network: str) -> socket.SocketKind:
    """Give the kind of socket of a network."""
    return socket.SOCK_STREAM if network in STREAMS else socket.SOCK_DGRAM


def is_unix(network: str) -> bool:
    """Whether its addresses are paths."""
    return network.startswith("unix")


def numeric_family(host: str) -> int:
    """Give the family of a numeric host; 0: it is a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return family
    return 0


def suits(network: str, host: str) -> bool:
    """Whether a numeric host is of the version of IP that the network asks for."""
    return not network.endswith("6" if ":" not in host else "4")


def zone_number(host: str) -> str:
    """Give a numeric host with its zone as a number, which may come as the name of an interface."""
    plain, percent, zone = host.partition("%")
    if not percent or zone.isdecimal():
        return host
    return f"{plain}%{socket.if_nametoindex(zone)}"
