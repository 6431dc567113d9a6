"""An HTTP server of aiohttp for tests of clients, a program of its own: prints its port, and that of TLS.

`/wait/N` answers N once the gate is open, `/waiting` how many wait there, `/close` and `/open` move the
gate, `/echo/N` answers N at once, `/sleep/N` after N s, `/never` nothing, `/drop` ends the connection.
`driver_http_server.py PORT` takes that port again. It ends when standard input does.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from certificates import server_context


class Gate:
    """What requests wait for."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def wait(self, request: web.Request) -> web.Response:
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        return web.Response(text=request.match_info["n"])

    async def count(self, request: web.Request) -> web.Response:
        return web.Response(text=str(self.waiting))

    async def move(self, request: web.Request) -> web.Response:
        (self.open.set if request.path == "/open" else self.open.clear)()
        return web.Response(text="0")


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.Response(body=request.match_info["n"].encode() + body)


async def sleep(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.match_info["n"]))
    return web.Response(text=request.match_info["n"])


async def never(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def drop(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def serve(port: int) -> None:
    """Until standard input ends."""
    gate = Gate()
    app = web.Application()
    app.router.add_get("/wait/{n}", gate.wait)
    app.router.add_get("/waiting", gate.count)
    app.router.add_get("/open", gate.move)
    app.router.add_get("/close", gate.move)
    app.router.add_route("*", "/echo/{n}", echo)
    app.router.add_get("/sleep/{n}", sleep)
    app.router.add_get("/never", never)
    app.router.add_get("/drop", drop)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    plain = web.TCPSite(runner, "127.0.0.1", port, backlog=1000, reuse_address=True)
    await plain.start()
    secure = web.TCPSite(runner, "127.0.0.1", 0, backlog=1000, ssl_context=server_context())
    await secure.start()
    ports = [address[1] for address in runner.addresses]
    print(*ports, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
