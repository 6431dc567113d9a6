"""The net workloads of workloads.toml on asyncio: `asyncio_net.py NAME N`.

By Protocols, callbacks without tasks; `tls` by streams.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import asyncio_boundary
import served


class _Echo(asyncio.Protocol):
    """Send back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


class _EchoPackets(asyncio.DatagramProtocol):
    """The same for packets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self.transport.sendto(data, sender)  # type: ignore[attr-defined]


async def protocol(context: ssl.SSLContext | None = None) -> None:
    """No task at all."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, backlog=1024, ssl=context)
    served.tell(server.sockets[0])
    await server.serve_forever()


async def packets() -> None:
    """The same for packets."""
    loop = asyncio.get_running_loop()
    kept = await loop.create_datagram_endpoint(_EchoPackets, sock=served.packets())
    await asyncio.Event().wait()
    del kept


def streams(run: Callable[[Coroutine[Any, Any, None]], None]) -> dict[str, Callable[[], None]]:
    """The servers that are made of streams, under the names of those that are made of Protocols."""
    return {
        **dict.fromkeys(served.FASTEST, lambda: run(asyncio_boundary.echo())),
        "net_tls": lambda: run(asyncio_boundary.echo(served.secured())),
    }


def main(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Do what the command line asks for on the event loop of `run`."""
    made: dict[str, Callable[[], None]] = {
        **dict.fromkeys(served.FASTEST, lambda: run(protocol())),
        "udp": lambda: run(packets()),
        "tls": streams(run)["net_tls"],
        "net_tls": lambda: run(protocol(served.secured())),
    }
    served.main({}, made)


if __name__ == "__main__":
    main(asyncio.run)
