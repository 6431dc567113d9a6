"""What the tests of gort.net share: two ends of a stream, descriptors counted, places to wait."""

from __future__ import annotations

import gc
import os
import socket

import gort
import gort.net
from waiting import LIMIT, eventually


def open_descriptors():
    """How many descriptors this process has."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def connected(network="tcp", address="127.0.0.1:0"):
    """Two ends of a connection: who dialled, who accepted."""
    with gort.net.listen(network, address) as listener:
        accepted = gort.go(listener.accept, timeout=LIMIT)
        a = gort.net.dial(network, listener.local_addr(), timeout=LIMIT)
        return a, accepted.join(timeout=LIMIT)


def small_buffers(*conns):
    """Let little fit into a connection, so that sending comes in parts."""
    for conn in conns:
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


def descriptors_back(base):
    """Wait until there are as many descriptors as before."""
    eventually(lambda: open_descriptors() <= base, what=f"{base} descriptors")
