"""The served workloads of workloads.toml on asyncio: `asyncio_boundary.py NAME N`.

By streams; what they have that is faster is in asyncio_net.py.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import served


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(served.RECV):
        writer.write(data)
        await writer.drain()
        del data  # else it would be kept over the wait
    writer.close()


async def echo(context: ssl.SSLContext | None = None) -> None:
    """A task per connection."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024, ssl=context)
    served.tell(server.sockets[0])
    await server.serve_forever()


def main(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Do what the command line asks for on the event loop of `run`."""
    served.main({}, dict.fromkeys(served.PLAIN, lambda: run(echo())))


if __name__ == "__main__":
    main(asyncio.run)
