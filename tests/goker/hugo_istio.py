"""Kernels from Hugo and Istio. MIT, see LICENSE; changes by the Go authors BSD, see LICENSE-GO."""

from __future__ import annotations

import gort
from gort import Chan, Mutex, Once, RWMutex, WaitGroup, go, recv, select

from goker.tools import Context, kernel, pause


@kernel(
    "main [sync.WaitGroup.Wait]", "getter [sync.Mutex.Lock]", "getter [sync.RWMutex.RLock]",
    "getter [sync.RWMutex.Lock]",
)  # fmt: skip
def hugo3251():
    class RemoteLock:
        def __init__(self):
            self.mu, self.m = RWMutex(), {}

        def url_lock(self, url):
            self.mu.lock()
            if url not in self.m:
                self.m[url] = Mutex()
            self.m[url].lock()
            pause()
            self.mu.unlock()

        def url_unlock(self, url):
            with self.mu.reading():
                if url in self.m:
                    self.m[url].unlock()

    def main():
        lock, wg = RemoteLock(), WaitGroup()

        def getter():
            for _ in range(5):
                lock.url_lock("http://")
                lock.url_unlock("http://")
                pause()
            wg.done()

        for _ in range(10):
            wg.add(1)
            go(getter)
        wg.wait()

    go(main)


@kernel("initialiser [sync.Mutex.Lock]", "renderer [sync.Mutex.Lock]", "main [sync.WaitGroup.Wait]")
def hugo5379():
    class Page:
        def __init__(self):
            self.content_init, self.plain_init, self.mu = Once(), Once(), Mutex()
            self.renderers = [self.word_count]

        def word_count(self):
            self.content_init.do(self.init_content)
            self.plain_init.do(self.init_plain)

        def init_plain(self):
            with self.mu:
                pass

        def init_content(self):
            ctx, result = gort.after(0.001), Chan(1)

            def initialiser():
                with self.mu:
                    for render in self.renderers:
                        render()
                result.send(None)

            go(initialiser)
            select(recv(ctx), recv(result))

    def main():
        page, wg = Page(), WaitGroup()

        def renderer():
            page.word_count()
            wg.done()

        for _ in range(2):
            wg.add(1)
            go(renderer)
        wg.wait()

    go(main)


@kernel(
    "main [sync.Mutex.Lock]", "run [chan send]",
    may=["run [chan receive]", "main [chan receive]", "run [select]"],
)  # fmt: skip
def istio16224():
    class Monitor:
        def __init__(self):
            self.handlers, self.events = [], Chan()

        def run(self, stop):
            while True:
                i, event, ok = select(recv(stop), recv(self.events))
                if i == 0:
                    if self.events.recv_ok()[1]:
                        self.events.close()
                    return
                if ok:
                    for handler in self.handlers:
                        handler(event)

    def main():
        monitor, done, lock, stop = Monitor(), Chan(), Mutex(), Chan()

        def handler(event):
            with lock:
                done.send(True)

        monitor.handlers.append(handler)
        go(monitor.run, stop)
        monitor.events.send(0)
        pause()
        lock.lock()
        lock.unlock()
        done.recv()
        stop.close()

    go(main)


@kernel("run_wait [chan send]")
def istio17860():
    class Agent:
        def __init__(self):
            self.mu, self.statuses, self.epoch, self.active = Mutex(), Chan(), 0, set()

        def run(self, ctx):
            while True:
                i, status, _ = select(recv(self.statuses), recv(ctx.done))
                if i == 1:
                    return
                with self.mu:
                    self.active.discard(status)
                    if not self.active:
                        return

        def restart(self):
            with self.mu:
                self.wait_until_live()
                self.epoch += 1
                self.active.add(self.epoch)
                go(self.run_wait, self.epoch)

        def run_wait(self, epoch):
            self.statuses.send(epoch)

        def wait_until_live(self):
            if self.active:
                gort.Timer(1e-6).c.recv()

    def main():
        ctx, agent = Context(), Agent()
        go(agent.run, ctx)
        agent.restart()
        go(agent.restart)
        pause()
        ctx.cancel()

    go(main)


@kernel("worker [chan receive]", "worker [chan send]", may=["worker [select]"])
def istio18454():
    class Worker:
        def __init__(self):
            self.ctx = Context()

        def start(self, run):
            def worker():
                run(self.ctx)

            go(worker)

    class Strategy:
        def __init__(self):
            self.timer, self.mu, self.reset, self.worker = None, Mutex(), Chan(1), Worker()

        def on_change(self):
            self.mu.lock()
            if self.timer is not None:
                self.mu.unlock()
                self.reset.send(None)
                return
            self.start_timer()
            self.mu.unlock()

        def start_timer(self):
            timer = self.timer = gort.Timer(1e-9)

            def loop(ctx):
                while True:
                    i = select(recv(timer.c), recv(self.reset), recv(ctx.done))[0]
                    if i == 2:
                        timer.stop()
                        return
                    if i == 1:
                        if not timer.stop():
                            timer.c.recv()  # with the timers of Go 1.23 there is never a value
                        timer.reset(1e-9)

            self.worker.start(loop)

    def main():
        strategy, worker, events = Strategy(), Worker(), Chan(1024)
        for _ in range(50):
            events.send(0)

        def run(ctx):
            try:
                while select(recv(ctx.done), recv(events))[0] == 1:
                    strategy.on_change()
                    pause()
            finally:
                strategy.worker.ctx.cancel()

        worker.start(run)
        pause()
        worker.ctx.cancel()

    go(main)
