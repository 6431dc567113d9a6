"""The served workloads of workloads.toml on asyncio: `asyncio_boundary.py NAME N`.

By streams; those of the fastest servers (net_*) by a Protocol.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import served


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(served.RECV):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo() -> None:
    """A task per connection."""
    server = await asyncio.start_server(_talk, "127.0.0.1", 0, backlog=1024)
    served.tell(server.sockets[0])
    await server.serve_forever()


class _Echo(asyncio.Protocol):
    """The same without streams: callbacks, and no task."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


async def protocol() -> None:
    """No task at all."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, backlog=1024)
    served.tell(server.sockets[0])
    await server.serve_forever()


def main(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Do what the command line asks for on the event loop of `run`."""
    servers = dict.fromkeys(served.PLAIN, echo) | dict.fromkeys(served.FASTEST, protocol)
    served.main({}, {name: lambda serve=serve: run(serve()) for name, serve in servers.items()})


if __name__ == "__main__":
    main(asyncio.run)
