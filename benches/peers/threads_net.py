"""The net workloads of workloads.toml on plain threads: `threads_net.py NAME N`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import served
import threads_boundary


def tls() -> None:
    """A thread per connection."""
    listener, context = served.listener(), served.secured()
    while True:
        threads_boundary.start(served.talk_tls, listener.accept()[0], context)


def udp() -> None:
    """One thread for all."""
    served.talk_packets(served.packets())


if __name__ == "__main__":
    echo = threads_boundary.echo
    servers = {**dict.fromkeys(served.FASTEST, echo), "udp": udp, "tls": tls, "net_tls": tls}
    served.main({}, servers)
