"""The net workloads of workloads.toml on sockets of gevent: `gevent_net.py NAME N`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gevent
import gevent_boundary
import served
from gevent import socket, ssl


def tls() -> None:
    """A greenlet per connection."""
    listener = gevent_boundary.listening()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served.PAIR)
    while True:
        gevent.spawn(served.talk_tls, listener.accept()[0], context)


def udp() -> None:
    """One greenlet for all."""
    served.talk_packets(socket.socket(fileno=served.packets().detach()))


if __name__ == "__main__":
    echo = gevent_boundary.echo
    servers = {**dict.fromkeys(served.FASTEST, echo), "udp": udp, "tls": tls, "net_tls": tls}
    served.main({}, servers)
