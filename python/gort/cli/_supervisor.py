"""Who starts, watches, replaces and ends the workers of `gort serve`.

One thread, no goroutine: a loop over one poll, which signals and workers wake. It holds the
listening sockets as long as it serves, so that a connection is never in the queue of a socket that
closes (docs/design/011-serve-listeners.md). A slot is a place for one worker; a reload fills all of
them anew before the old workers are told to go.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from gort.cli._output import complain
from gort.cli._serve_worker import CUT, END, FAILED, GO, NO_APP, READY, RETIRE

__all__ = ["Supervisor", "Worker"]

#: Seconds until a worker that died is started again: the first time, and at most.
PAUSE, PAUSE_MOST = 0.1, 10.0
#: A worker that lived for so many seconds is started again at once.
HEALTHY = 10.0
#: What a worker gets on top of the time for its requests until it is killed.
KILL_AFTER = 5.0
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
_CODE += "from gort.cli._serve_worker import main; sys.exit(main(sys.argv[1:]))"
#: Blocked while a worker starts: it takes them over blocked, and is not ended by a Ctrl-C that is
#: meant for the supervisor before it can say so.
_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def log(text: str) -> None:
    """Write a line of the log to stderr."""
    complain(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] gort serve: {text}")


class Worker:
    """A worker process and what is known of it."""

    def __init__(self, config: dict[str, Any], listeners: list[socket.socket]) -> None:
        """Start one.

        Raises:
            OSError: there is no process or descriptor to be had.
        """
        self.is_ready = False  # has its application
        self.is_serving = False  # was told to accept
        self.is_leaving = False  # was told to go, or is killed
        self.said = b""
        self.kill_at = float("inf")
        self.began = time.monotonic()
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        numbers = [sock.fileno() for sock in (theirs, *listeners)]
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        words = [json.dumps(config["path"]), json.dumps({**config, "supervisor": os.getpid()})]
        command = [sys.executable, *flags, "-c", _CODE, *words, *map(str, numbers)]
        old = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            with theirs:
                self.process = subprocess.Popen(command, pass_fds=numbers)
        except BaseException:
            self.control.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def hear(self) -> bool:
        """Take what it says; whether it may say more."""
        try:
            data = self.control.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.said += data
        self.is_ready = self.is_ready or self.said.startswith(READY)
        return bool(data)

    def tell(self, command: bytes) -> None:
        """Tell it something; one that is gone need not hear."""
        try:
            self.control.send(command)
        except OSError:
            pass

    def go(self) -> None:
        """Let it accept connections."""
        self.is_serving = True
        self.tell(GO)

    def leave(self, command: bytes, seconds: float) -> None:
        """Tell it to go, and kill it if it has not gone in time. Where it does not serve: now."""
        self.is_leaving = True
        if self.is_serving:
            self.tell(command)
            self.kill_at = time.monotonic() + seconds
        else:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.is_leaving = True
        self.kill_at = float("inf")
        self.process.kill()

    def ended(self) -> str:
        """Say how it ended."""
        status = self.process.returncode
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"


class Slot:
    """A place for a worker: who has it, and when it gets another."""

    def __init__(self) -> None:
        """Nobody has it, and it is due."""
        self.worker: Worker | None = None
        self.due = 0.0
        self.pause = 0.0

    def died(self, lived: float) -> float:
        """Set when the next worker is due, later each time; in how many seconds."""
        if lived >= HEALTHY:
            self.pause = 0.0
            wait = 0.0
        else:
            wait = self.pause = min(self.pause * 2 or PAUSE, PAUSE_MOST)
        self.worker = None
        self.due = time.monotonic() + wait
        return wait


class Supervisor:
    """Keeps `count` workers at the listeners until it is told to end.

    Args:
        config: for the workers, JSON: app, options, tls, threads.
        listeners: they are bound; the supervisor closes them.
        count: how many workers.
        where: the listeners, for the log.
    """

    def __init__(
        self, config: dict[str, Any], listeners: list[socket.socket], count: int, where: str
    ) -> None:
        """Start nothing yet."""
        self._config = config
        self._listeners = listeners
        self._where = where
        self._limit = config["options"]["drain_timeout"] + KILL_AFTER
        self._slots = [Slot() for _ in range(count)]
        self._fresh: list[Worker] = []  # of a reload that is under way
        self._workers: list[Worker] = []  # all that have not been waited for
        self._poll = select.poll()
        self._signals: list[int] = []
        self._is_up = False
        self._is_ending = False
        self._status = 0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, and give the exit status.

        0: all requests were answered. 1: some were cut, or workers cannot run. 2: there is no such
        application.
        """
        wakes, wake = socket.socketpair()
        for sock in (wakes, wake):
            sock.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))
        self._poll.register(wakes, select.POLLIN)
        try:
            while not self._is_over():
                self._turn(wakes)
        finally:
            for worker in self._workers:
                worker.kill()
            for worker in self._workers:
                worker.process.wait()
        if self._is_up:
            log(f"ended with status {self._status}")
        return self._status

    def _is_over(self) -> bool:
        """Tell whether the end has come, starting what is due otherwise."""
        if self._is_ending:
            return not self._workers
        now = time.monotonic()
        for slot in self._slots:
            if slot.worker is None and slot.due <= now:
                slot.worker = self._start()
                if slot.worker is None:
                    slot.died(0)
        return False

    def _turn(self, wakes: socket.socket) -> None:
        """Wait for whatever comes next, and do it."""
        ready = {number for number, _ in self._poll.poll(self._milliseconds())}
        if wakes.fileno() in ready:
            wakes.recv(4096)
        for worker in list(self._workers):
            if worker.control.fileno() in ready and not worker.hear():
                self._poll.unregister(worker.control)
        while self._signals:
            self._signalled(self._signals.pop(0))
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.process.poll() is not None:
                self._gone(worker)
            elif worker.kill_at <= now:
                log(f"worker {worker.process.pid} does not end in time, and is killed")
                worker.kill()
        self._go_on()

    def _milliseconds(self) -> int | None:
        """Give the time until something is due by the clock."""
        times = [worker.kill_at for worker in self._workers]
        if not self._is_ending:
            times += [slot.due for slot in self._slots if slot.worker is None]
        first = min(times, default=float("inf"))
        return None if first == float("inf") else max(0, int((first - time.monotonic()) * 1e3) + 1)

    def _start(self) -> Worker | None:
        """Start a worker; None, and said, when that does not go."""
        try:
            worker = Worker(self._config, self._listeners)
        except OSError as error:
            log(f"cannot start a worker: {error}")
            return None
        self._workers.append(worker)
        self._poll.register(worker.control, select.POLLIN)
        return worker

    def _go_on(self) -> None:
        """Let workers serve that are ready: the first ones, and those of a reload, all at once."""
        if self._is_ending:
            return
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        ready = [worker for worker in workers if worker.is_ready]
        if self._is_up or len(ready) == len(self._slots):
            for worker in ready:
                if not worker.is_serving:
                    worker.go()
        if not self._is_up and len(ready) == len(self._slots):
            self._is_up = True
            log(f"serving {self._config['app']} at {self._where}, {_pids(ready)}")
        if self._fresh and all(worker.is_ready for worker in self._fresh):
            for worker in self._fresh:
                worker.go()
            for worker in workers:
                worker.leave(RETIRE, self._limit)
            for slot, worker in zip(self._slots, self._fresh, strict=True):
                slot.worker, slot.pause = worker, 0.0
            log(f"reloaded, {_pids(self._fresh)}")
            self._fresh = []

    def _signalled(self, number: int) -> None:
        """Act on a signal."""
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            if self._is_up and not self._is_ending:
                self._reload()
            else:
                log("SIGHUP: not now")
        elif self._is_ending:
            log(f"{name} again: the workers are killed")
            for worker in self._workers:
                worker.kill()
        else:
            log(f"{name}: ending")
            self._end(0)

    def _reload(self) -> None:
        """Start a new worker for each slot; the old ones serve until all of those do."""
        log("SIGHUP: reloading")
        self._drop_fresh()
        for _ in self._slots:
            worker = self._start()
            if worker is None:
                self._drop_fresh()
                log("not reloaded: the old workers go on")
                return
            self._fresh.append(worker)

    def _drop_fresh(self) -> None:
        """Let the workers of a reload go that is not to be."""
        fresh, self._fresh = self._fresh, []
        for worker in fresh:
            worker.leave(RETIRE, self._limit)

    def _end(self, status: int) -> None:
        """Let all workers finish what they do, and take no new connections."""
        self._status = self._status or status
        self._is_ending = True
        self._fresh = []
        for sock in self._listeners:
            sock.close()
        for worker in self._workers:
            worker.leave(END, self._limit)

    def _gone(self, worker: Worker) -> None:
        """Act on a worker's end."""
        worker.hear()
        self._forget(worker)
        pid, lived = worker.process.pid, time.monotonic() - worker.began
        if worker.is_leaving:
            if worker.is_serving and worker.process.returncode:
                log(f"worker {pid} {_how(worker)}")
                self._status = self._status or int(self._is_ending)
            return
        if not self._is_up:
            self._fail(worker)
            return
        if worker in self._fresh:
            log(f"not reloaded, the old workers go on: {_why(worker)}")
            self._fresh.remove(worker)
            self._drop_fresh()
            return
        slot = next(slot for slot in self._slots if slot.worker is worker)
        wait = slot.died(lived)
        log(f"{_why(worker)}; another is started {f'in {wait:g} s' if wait else 'now'}")

    def _fail(self, worker: Worker) -> None:
        """End because the first workers do not get to serve."""
        if self._is_ending:
            return
        if worker.process.returncode == FAILED and worker.said.startswith(NO_APP):
            complain(f"gort serve: {worker.said[1:].decode(errors='replace')}")
            self._end(2)
        else:
            complain(f"gort serve: {_why(worker)} before it served")
            self._end(1)

    def _forget(self, worker: Worker) -> None:
        """Give back what a worker had here."""
        self._workers.remove(worker)
        try:
            self._poll.unregister(worker.control)
        except KeyError:
            pass  # it had closed its end before
        worker.control.close()


def _how(worker: Worker) -> str:
    """Say how a worker that was told to go ended."""
    if worker.process.returncode == CUT:
        return "cut requests that did not finish in time"
    return worker.ended()


def _why(worker: Worker) -> str:
    """Say what became of a worker that was not told to go."""
    if worker.said.startswith(NO_APP):
        return worker.said[1:].decode(errors="replace")
    return f"worker {worker.process.pid} {worker.ended()}"


def _pids(workers: list[Worker]) -> str:
    """Name the workers."""
    pids = ", ".join(str(worker.process.pid) for worker in workers)
    return f"worker{'s' if len(workers) > 1 else ''} {pids}"
