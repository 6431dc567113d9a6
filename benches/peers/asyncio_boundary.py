"""The served workloads of workloads.toml on streams of asyncio: `asyncio_boundary.py NAME N`."""

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


def main(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Do what the command line asks for on the event loop of `run`."""
    served.main({}, {name: lambda: run(echo()) for name in ("echo", "idle")})


if __name__ == "__main__":
    main(asyncio.run)
