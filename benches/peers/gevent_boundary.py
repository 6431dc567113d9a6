"""The served workloads of workloads.toml on sockets of gevent: `gevent_boundary.py NAME N`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gevent
import served
from gevent import socket


def listening() -> socket.socket:
    """A listening socket, its port told."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    served.tell(listener)
    return listener


def echo() -> None:
    """A greenlet per connection."""
    listener = listening()
    while True:
        gevent.spawn(served.talk, listener.accept()[0])


if __name__ == "__main__":
    served.main({}, dict.fromkeys(served.PLAIN, echo))
