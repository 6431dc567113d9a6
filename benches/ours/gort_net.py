"""The net workloads of benches/workloads.toml on gort: `gort_net.py NAME N`.

By gort.net; `tls` is the module ssl over plain sockets.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gort
import gort.net
import served

#: More than a message, as a Protocol's loop asks for: a read that does not fill it knows that
#: there is no more, and the next one waits without a try (docs/net.md).
ROOM = 1 << 16


def talk(conn: gort.net.Conn) -> None:
    """Echo until the other side ends."""
    while data := conn.read(ROOM):
        conn.write(data)
        del data  # else it would be kept over the wait


def talk_tls(conn: gort.net.TLSConn) -> None:
    """The same over TLS."""
    while data := conn.read(served.RECV):
        conn.write(data)
        del data


def echo() -> None:
    """A goroutine per connection."""
    listener = gort.net.listen("tcp", "127.0.0.1:0")
    print(listener.local_addr()[1], flush=True)
    listener.serve(talk)


def net_tls() -> None:
    """The same over TLS."""
    listener = gort.net.listen_tls("127.0.0.1:0", served.secured())
    print(listener.local_addr()[1], flush=True)
    listener.serve(talk_tls)


def tls() -> None:
    """The same by the module ssl."""
    listener, context = served.listener(), served.secured()
    while True:
        gort.go(served.talk_tls, listener.accept()[0], context)


def udp() -> None:
    """One goroutine for all."""
    conn = gort.net.listen_packet("udp", "127.0.0.1:0")
    print(conn.local_addr()[1], flush=True)
    while True:
        data, sender = conn.read_from(served.PACKET)
        conn.write_to(data, sender)


if __name__ == "__main__":
    servers = {**dict.fromkeys(served.FASTEST, echo), "udp": udp, "tls": tls, "net_tls": net_tls}
    served.main({}, {name: lambda f=f: gort.run(f) for name, f in servers.items()})
