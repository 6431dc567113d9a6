"""A server of gRPC for tests of its client, a program of its own: prints its port.

`/s/wait` answers what it is sent once the gate is open, `/s/echo` at once, `/s/sleep` after as many seconds
as that says, `/s/waiting` says how many wait, `/s/open` and `/s/close` move the gate, `/s/count` streams as many numbers as it is told. Messages are
bytes. `driver_grpc_server.py PORT` takes that port again. It ends when standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio


class Service:
    """What it answers."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside = 0

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.inside += 1
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return request

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def sleep(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(float(request))
        return request

    async def waiting(self, request: bytes, context: Any) -> bytes:
        return str(self.inside).encode()

    async def open(self, request: bytes, context: Any) -> bytes:
        self.gate.set()
        return b""

    async def close(self, request: bytes, context: Any) -> bytes:
        self.gate.clear()
        return b""

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for n in range(int(request)):
            yield str(n).encode()


async def serve(port: int) -> None:
    """Until standard input ends."""
    service = Service()
    unary = ("wait", "echo", "sleep", "waiting", "open", "close")
    methods = {n: grpc.unary_unary_rpc_method_handler(getattr(service, n)) for n in unary}
    methods["count"] = grpc.unary_stream_rpc_method_handler(service.count)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", methods),))
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
