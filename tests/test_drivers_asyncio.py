"""asyncio beside goroutines under load: clients of aiohttp and httpx on a loop, blocking clients in
goroutines, in one process against one server, and values that go to and fro between the two.
"""

from __future__ import annotations

import pytest
from driving import Served, drive, needs

FIRST = """
import asyncio, queue, threading, urllib.request, warnings
import urllib3
def control(path):
    with urllib.request.urlopen(f"{place}/{path}") as answer:
        return int(answer.read())
pool = urllib3.PoolManager(maxsize=250, retries=False)
def blocking(i, path="echo"):
    return int(pool.request("GET", f"{place}/{path}/{i}", timeout=60).data)

class Aiohttp:
    async def __aenter__(self):
        import aiohttp
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self
    async def __aexit__(self, *_):
        await self.session.close()
    async def get(self, i, path="echo"):
        async with self.session.get(f"{place}/{path}/{i}") as answer:
            return int(await answer.read())

class Httpx:
    async def __aenter__(self):
        import httpx
        self.client = httpx.AsyncClient(limits=httpx.Limits(max_connections=250), trust_env=False, timeout=60)
        return self
    async def __aexit__(self, *_):
        await self.client.aclose()
    async def get(self, i, path="echo"):
        return int((await self.client.get(f"{place}/{path}/{i}")).content)
"""

CLIENTS = pytest.mark.parametrize("client", ["Aiohttp", "Httpx"])
COUNT = {"Aiohttp": 250, "Httpx": 100}  # the pool of httpx takes the square of this


@pytest.fixture(scope="module")
def server():
    needs("aiohttp", "httpx", "urllib3")
    with Served("driver_http_server.py") as served:
        yield served


def run(server, code: str, client: str = "Aiohttp") -> None:
    names = f'place, COUNT = "http://127.0.0.1:{server.ports[0]}", {COUNT[client]}\n'
    drive(f"{names}{FIRST}\nClient = {client}\n{code}\nprint('ok')")


@CLIENTS
def test_tasks_and_goroutines_wait_at_one_server_at_once(client, server):
    run(
        server,
        """
async def tasks():
    async with Client() as client:
        return await asyncio.gather(*(client.get(i, "wait") for i in range(COUNT)))
control("close")
loop = gort.go(asyncio.run, tasks())
goroutines = begun(lambda i: blocking(-i, "wait"), COUNT)
eventually(lambda: control("waiting") == 2 * COUNT)
control("open")
assert loop.join() == list(range(COUNT))
assert join_all(goroutines) == [-i for i in range(COUNT)]
""",
        client,
    )


@CLIENTS
def test_tasks_wait_for_goroutines_and_goroutines_for_tasks(client, server):
    run(
        server,
        """
async def twice(client, i):
    "A task asks, has a goroutine ask, and asks a loop's future from there."
    loop = asyncio.get_running_loop()
    def ask():
        future = asyncio.run_coroutine_threadsafe(client.get(3 * i), loop)
        return blocking(2 * i), gort.from_future(future)
    first = await client.get(i)
    return first, *await gort.wait(gort.go(ask))
async def main():
    async with Client() as client:
        return await asyncio.gather(*(twice(client, i) for i in range(COUNT)))
assert asyncio.run(main()) == [(i, 2 * i, 3 * i) for i in range(COUNT)]
""",
        client,
    )


def test_a_channel_between_them_carries_every_answer_once(server):
    run(
        server,
        """
asked, answered = gort.Chan(10), gort.Chan()
async def answer(client):
    async for i in asked:
        await answered.send_async((i, await client.get(i)))
async def main():
    async with Client() as client:
        await asyncio.gather(*(answer(client) for _ in range(50)))
loop = gort.go(asyncio.run, main())
askers = begun(asked.send, 500)
answers = sorted(answered.recv() for _ in range(500))
asked.close()
join_all(askers)
loop.join()
assert answers == [(i, i) for i in range(500)]
""",
    )


def test_many_loops_in_goroutines_each_have_their_own(server):
    run(
        server,
        """
async def some(i):
    async with Client() as client:
        return await asyncio.gather(*(client.get(10 * i + k) for k in range(10)))
found = join_all(begun(lambda i: asyncio.run(some(i)), 30))
assert found == [[10 * i + k for k in range(10)] for i in range(30)]
""",
    )


@CLIENTS
def test_cancelled_tasks_and_goroutines_leave_clients_whole(client, server):
    run(
        server,
        """
control("close")
async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(gort.futures.Executor())
    async with Client() as client:
        tasks = [asyncio.create_task(client.get(i, "wait")) for i in range(100)]
        goroutines = begun(lambda i: blocking(i, "wait"), 100)
        while await asyncio.to_thread(control, "waiting") < 200:
            await asyncio.sleep(0.001)
        for i in range(0, 100, 2):
            tasks[i].cancel()
            goroutines[i].cancel()
        await asyncio.gather(*tasks[::2], return_exceptions=True)
        await asyncio.to_thread(control, "open")
        assert await asyncio.gather(*tasks[1::2]) == list(range(1, 100, 2))
        assert [await gort.wait(g) for g in goroutines[1::2]] == list(range(1, 100, 2))
        assert all(t.cancelled() for t in tasks[::2])
        again = await asyncio.gather(*(client.get(i) for i in range(200)))
        assert again == list(range(200))
import gort.futures
asyncio.run(main())
assert join_all(begun(blocking, 200)) == list(range(200))
""",
        client,
    )


def test_a_lost_server_is_an_error_on_both_sides_and_both_come_back(server):
    run(
        server,
        """
import aiohttp
server = Served("driver_http_server.py")
place = f"http://127.0.0.1:{server.ports[0]}"
def lost(i):
    try:
        return blocking(i, "wait")
    except urllib3.exceptions.HTTPError:
        return "lost"
async def main():
    async with Client() as client:
        tasks = [asyncio.create_task(client.get(i, "wait")) for i in range(50)]
        goroutines = begun(lost, 50)
        while await gort.wait(gort.go(control, "waiting")) < 100:
            await asyncio.sleep(0.001)
        server.kill()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(e, aiohttp.ClientError) for e in found), found
        assert [await gort.wait(g) for g in goroutines] == ["lost"] * 50
        await asyncio.to_thread(server.start)
        again = await asyncio.gather(*(client.get(i) for i in range(50)))
        assert again == list(range(50))
        assert [await gort.wait(g) for g in begun(blocking, 50)] == list(range(50))
asyncio.run(main())
server.kill()
""",
    )
