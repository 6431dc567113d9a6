"""The load that `gort demo` puts on an HTTP service: goroutines with kept or fresh connections.

Every answer is checked. Times are nanoseconds, and those of a request alone: the wait for the
semaphore is not in them. `key_values` and `million` are tasks of `gort.cli._work`, each in a
process of its own.
"""

from __future__ import annotations

import errno
import resource
from array import array
from collections.abc import Callable
from time import monotonic_ns, perf_counter
from typing import Any

import gort
import gort.net
from gort.cli import _measure
from gort.cli._progress import Progress

__all__ = ["Client", "key_values", "million", "percentiles"]

_TICK_SECONDS = 0.1
# Among a million goroutines that are all ready, an answer waits until it is its reader's turn.
_PATIENCE_SECONDS = 600.0
_HEALTH = ("GET", "/health", b"", b"ok")
Step = tuple[str, str, bytes, bytes]  # method, target, body, and what must be answered


class Client:
    """A connection to the service; used by one goroutine at a time.

    Args:
        port: of the service, on this machine.
        is_kept: whether it is used again after an answer.

    Raises:
        OSError: there is no descriptor, or nobody answers.
    """

    def __init__(self, port: int, is_kept: bool = True) -> None:
        """Connect."""
        self._conn = gort.net.dial("tcp", ("127.0.0.1", port), timeout=_PATIENCE_SECONDS)
        self._last = b"" if is_kept else b"Connection: close\r\n"
        self.is_open = True

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request and give the answer's status and body. Parks.

        Raises:
            OSError: the connection broke, or was silent for minutes.
        """
        conn = self._conn
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        conn.write(head.encode() + self._last + b"\r\n" + body)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        fields = data[:end].lower().split(b"\r\n")
        length = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
        while len(data) < end + 4 + length:
            data += self._more()
        if b"connection: close" in fields:
            self.close()
        return int(fields[0][9:12]), data[end + 4 :]

    def _more(self) -> bytes:
        data = self._conn.read(65536, timeout=_PATIENCE_SECONDS)
        if not data:
            raise ConnectionError("the service ended the connection in the middle of an answer")
        return data

    def close(self) -> None:
        """Close it."""
        self.is_open = False
        self._conn.close()


def percentiles(times_ns: array[int]) -> dict[str, float]:
    """Give the nearest-rank p50, p99 and p999, in nanoseconds.

    Example:
        >>> from array import array
        >>> from gort.cli._load import percentiles
        >>> percentiles(array("q", range(1000)))
        {'p50_ns': 500, 'p99_ns': 990, 'p999_ns': 999}
    """
    times = sorted(times_ns) or [0]
    parts = {"p50_ns": 0.5, "p99_ns": 0.99, "p999_ns": 0.999}
    return {
        name: times[min(int(part * len(times)), len(times) - 1)] for name, part in parts.items()
    }


class Load:
    """Goroutines that ask, and what became of their requests.

    Args:
        port: of the service.
        limit: how many of them may ask at once; None: all.
    """

    def __init__(self, port: int, limit: int | None) -> None:
        """Ask nothing yet."""
        self._port = port
        self._room = None if limit is None else gort.Semaphore(limit)
        self._idle: list[Client] = []
        self.times_ns = array("q")
        self.ended = self.active = self.peak = self.refused = self.wrong = 0
        self.example = ""  # of what went wrong

    def go(self, steps: tuple[Step, ...]) -> None:
        """Be a goroutine: ask for the steps, one after the other."""
        room = self._room
        if room is not None:
            room.acquire()
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            self._ask(steps)
        finally:
            self.active -= 1
            if room is not None:
                room.release()

    def _ask(self, steps: tuple[Step, ...]) -> None:
        done = 0
        client = None
        try:
            client = self._idle.pop() if self._idle else Client(self._port, self._room is not None)
            for method, target, body, expected in steps:
                start = monotonic_ns()
                answer = client.ask(method, target, body)
                self.times_ns.append(monotonic_ns() - start)
                done += 1
                if answer != (200, expected):
                    self._failed(1, f"{method} {target}: {answer} instead of {expected!r}")
            if client.is_open and self._room is not None:
                self._idle.append(client)
            else:
                client.close()
        except OSError as error:
            if client is not None:
                client.close()
            left = len(steps) - done
            if error.errno == errno.EMFILE:
                self.refused += left
            else:
                self._failed(left, f"{type(error).__name__}: {error}")
        self.ended += len(steps)

    def _failed(self, count: int, text: str) -> None:
        self.wrong += count
        self.example = self.example or text

    def run(
        self, title: str, count: int, steps: Callable[[int], tuple[Step, ...]], alive: int
    ) -> dict[str, Any]:
        """Start `count` goroutines, wait for all, and give the figures. Parks.

        Args:
            title: over the progress.
            count: how many.
            steps: what goroutine i asks for.
            alive: how many goroutines there may be at once.
        """
        each = len(steps(0))
        progress = Progress(title, count * each, "requests")
        finished: gort.Chan[None] = gort.Chan()
        places, everybody = gort.Semaphore(alive), gort.WaitGroup()

        def one(i: int) -> None:
            try:
                self.go(steps(i))
            finally:
                places.release()

        def show() -> None:
            ticker = gort.Ticker(_TICK_SECONDS)
            while gort.select(gort.recv(ticker.c), gort.recv(finished))[0] == 0:
                progress.done = self.ended
                progress.show()
            ticker.stop()

        start = perf_counter()
        bar = gort.go(show)
        for i in range(count):
            places.acquire()
            everybody.go(one, i)
        everybody.wait()
        seconds = perf_counter() - start
        finished.close()
        bar.join()
        progress.done = self.ended
        progress.end(seconds)
        for client in self._idle:
            client.close()
        return {
            "requests": count * each,
            "answered": len(self.times_ns),
            "refused": self.refused,
            "errors": self.wrong,
            "example": self.example,
            "lost": count * each - self.ended,
            "seconds": seconds,
            "peak": self.peak,
            "peak_bytes": _measure.peak_bytes(),
            **percentiles(self.times_ns),
        }


def _key_steps(i: int) -> tuple[Step, ...]:
    """PUT a key of one's own, GET it, and ask for the health."""
    value = f"value {i} ".encode() * 8
    return (("PUT", f"/kv/{i}", value, b""), ("GET", f"/kv/{i}", b"", value), _HEALTH)


def key_values(title: str, port: int, goroutines: int, limit: int) -> dict[str, Any]:
    """Have goroutines PUT and GET keys of their own, at most `limit` of them at once."""
    return gort.run(Load(port, limit).run, title, goroutines, _key_steps, goroutines)


def million(port: int, count: int, limit: int, files: int, alive: int) -> dict[str, Any]:
    """GET /health `count` times by a goroutine each: through a Semaphore, then without a limit.

    Args:
        port: of the service.
        count: how many.
        limit: of the semaphore.
        files: descriptors of this process in the part without a limit; fewer where the system
            allows fewer.
        alive: how many goroutines there may be at once.

    Returns:
        limited and unlimited: figures as of `Load.run`; files: what the limit was; after: whether
        there was an answer afterwards.
    """

    def main() -> dict[str, Any]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        title = f"through Semaphore({limit:,})"
        limited = Load(port, limit).run(title, count, lambda _: (_HEALTH,), alive)
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        title = f"unlimited, {most:,} descriptors"
        unlimited = Load(port, None).run(title, count, lambda _: (_HEALTH,), alive)
        client = Client(port)
        after = client.ask("GET", "/health") == (200, b"ok")
        client.close()
        return {"limited": limited, "unlimited": unlimited, "files": most, "after": after}

    return gort.run(main)
