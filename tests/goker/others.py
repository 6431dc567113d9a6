"""Kernels from Hugo, Istio, Moby, Knative Serving and Syncthing. MIT, see LICENSE; changes by the Go
authors BSD, see LICENSE-GO.
"""

from __future__ import annotations

import random

import gort
from gort import Chan, Cond, Mutex, Once, RWMutex, WaitGroup, go, recv, select, send
from goker.tools import Context, is_closed, kernel, pause


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


@kernel(
    "initialiser [sync.Mutex.Lock]", "renderer [sync.Mutex.Lock]", "main [sync.WaitGroup.Wait]"
)
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


@kernel("delete_device [sync.Mutex.Lock]")
def moby4951():
    class Info:
        def __init__(self):
            self.lock = Mutex()

    class DeviceSet:
        def __init__(self):
            self.mu, self.infos = Mutex(), {"info1": Info(), "info2": Info()}

        def delete_device(self, name):
            with self.mu:
                info = self.infos[name]
                with info.lock:
                    pause()
                    self.mu.unlock()
                    pause()
                    self.mu.lock()

    devices = DeviceSet()
    go(devices.delete_device, "info1")
    go(devices.delete_device, "info1")


@kernel("run [sync.Mutex.Lock]")
def moby7559():
    class Proxy:
        def __init__(self):
            self.lock = Mutex()

        def dial(self):
            raise OSError("missing address")

        def run(self):
            for _ in range(2):
                self.lock.lock()
                try:
                    self.dial()
                except OSError:
                    continue
                break
            self.lock.unlock()

    go(Proxy().run)


@kernel("locker [sync.Mutex.Lock]")
def moby17176():
    class DeviceSet:
        def __init__(self):
            self.mu, self.deleted = Mutex(), 0

        def clean_up(self):
            self.mu.lock()
            if self.deleted == 0:
                return
            self.mu.unlock()

    def main():
        devices, done = DeviceSet(), Chan()
        devices.clean_up()

        def locker():
            with devices.mu:
                done.send(True)

        go(locker)
        select(recv(gort.after(0.001)), recv(done))

    go(main)


@kernel("watcher [chan send]", "main [chan receive]", may=["watcher [select]"])
def moby21233():
    class Watcher:
        def __init__(self):
            self.signal, self.release, self.running = Chan(), Chan(), Chan()

    class Transfer:
        def __init__(self):
            self.mu = Mutex()

        def watch(self, progress):
            w = Watcher()

            def watcher():
                done = False
                while not done:
                    with self.mu:
                        pass
                    if random.randrange(2):
                        progress.send("progress")
                    done = select(recv(w.signal), recv(w.release))[0] == 1
                w.running.close()

            with self.mu:
                go(watcher)
            return w

    def main():
        progress, done = Chan(), Chan()

        def reader():
            for _ in progress:
                if random.randrange(2):
                    return
            done.close()

        go(reader)
        watchers = []
        for _ in range(3):
            watchers.append(Transfer().watch(progress))
            pause()
        for w in watchers:
            w.release.close()
            w.running.recv_ok()
        progress.close()
        done.recv_ok()

    go(main)


@kernel("init [sync.WaitGroup.Wait]")
def moby25348():
    def init(plugins):
        group = WaitGroup()
        group.add(len(plugins))
        for _ in plugins:
            go(group.done)
            group.wait()

    go(init, [1, 2])


@kernel("read_logs [sync.Cond.Wait]", "read_events [select]")
def moby27782():
    class FileWatcher:
        def __init__(self):
            self.events, self.mu, self.done = Chan(), Mutex(), Chan()
            self.cv = Cond(self.mu)
            go(self.read_events)

        def read_events(self):
            while not is_closed(self.done):
                pause()
                if select(send(self.events, "write"), recv(self.done))[0] == 1:
                    break
            self.events.close()

        def remove(self):
            with self.mu:
                while True:
                    self.cv.wait()

    def follow_logs(closed):
        watcher = FileWatcher()
        pause()
        if select(recv(watcher.events), recv(closed))[0] == 1:
            watcher.remove()
        watcher.done.close()

    class Logger:
        def __init__(self):
            self.mu, self.readers = Mutex(), []

        def read_logs(self, closed):
            with self.mu:
                self.readers.append(closed)
            follow_logs(closed)

        def close(self):
            with self.mu:
                while self.readers:
                    self.readers.pop().close()

    def main():
        logger = Logger()
        go(logger.read_logs, Chan())
        pause()
        logger.close()

    go(main)


@kernel("monitor [sync.Mutex.Lock]", "state_changed [chan send]")
def moby28462():
    class Container:
        def __init__(self):
            self.mu, self.stop = Mutex(), Chan()

        def state_changed(self):
            pause()
            with self.mu:
                self.stop.send(None)

    def monitor(c):
        while select(recv(c.stop), default=True)[0] != 0:
            pause()
            with c.mu:
                pass
            gort.gosched()

    c = Container()
    go(monitor, c)
    go(c.state_changed)


@kernel("main [chan receive]", "activator [sync.Cond.Wait]")
def moby30408():
    class Plugin:
        def __init__(self):
            self.wait, self.manifest = Cond(Mutex()), None

    def main():
        plugin, lock, done = Plugin(), Mutex(), Chan()
        plugin.wait = Cond(lock)

        def activator():
            with lock:
                while plugin.manifest is None:
                    plugin.wait.wait()
            done.close()

        go(activator)
        done.recv_ok()

    go(main)


@kernel("prober [chan send]", may=["stopper [chan send]"])
def moby33781():
    def monitor(stop):
        while True:
            if select(recv(stop), recv(gort.after(1e-5)))[0] == 0:
                return
            results = Chan()

            def prober(results=results):
                pause()
                results.send(True)
                results.close()

            go(prober)
            i = select(recv(stop), recv(results), recv(gort.after(1e-5)))[0]
            if i == 0:
                return
            if i == 2:
                results.recv()

    def stopper(stop):
        for _ in range(random.randrange(20)):
            gort.gosched()
        stop.send(True)

    stop = Chan()
    go(monitor, stop)
    go(stopper, stop)


@kernel("hot_add [sync.Mutex.Lock]")
def moby36114():
    class ServiceVM:
        def __init__(self):
            self.mu = Mutex()

        def hot_add(self):
            with self.mu:
                self.hot_remove()

        def hot_remove(self):
            with self.mu:
                pass

    go(ServiceVM().hot_add)


@kernel(
    "request [chan send]", "request [sync.Mutex.Lock]", "main [chan receive]",
)  # fmt: skip
def serving2137():
    class Breaker:
        def __init__(self):
            self.pending, self.active = Chan(2), Chan(1)

        def maybe(self, thunk):
            if not self.pending.try_send(None):
                return False
            self.active.send(None)
            thunk()
            self.active.recv()
            pause()
            self.pending.recv()
            return True

        def concurrent_request(self):
            lock, accepted, started = Mutex(), Chan(1), WaitGroup()
            lock.lock()
            started.add(1)

            def thunk():
                lock.lock()
                pause()
                lock.unlock()

            def request():
                started.done()
                pause()
                accepted.send(self.maybe(thunk))

            go(request)
            started.wait()
            return lock, accepted

    def main():
        breaker = Breaker()
        requests = [breaker.concurrent_request() for _ in range(2)]
        for lock, accepted in requests:
            lock.unlock()
            pause()
            accepted.send(accepted.recv())

    go(main)


@kernel("main [sync.RWMutex.RLock]")
def syncthing4829():
    class Mapping:
        def __init__(self):
            self.mu, self.addresses = RWMutex(), {"test": 0}

        def clear(self):
            self.mu.lock()
            removed = list(self.addresses.values())
            self.addresses.clear()
            if removed:
                self.notify()
            self.mu.unlock()

        def notify(self):
            self.mu.rlock()
            self.mu.runlock()

    class Service:
        def __init__(self):
            self.mu, self.mappings = RWMutex(), [Mapping()]

        def remove(self, mapping):
            with self.mu:
                for existing in self.mappings:
                    if existing is mapping:
                        mapping.clear()

    def main():
        service = Service()
        service.remove(service.mappings[0])

    go(main)


@kernel("dispatcher_loop [chan receive]", "main [chan receive]")
def syncthing5795():
    class Connection:
        def __init__(self):
            self.inbox, self.stopped, self.closed, self.once = Chan(), Chan(), Chan(), Once()

        def dispatcher_loop(self):
            while select(recv(self.inbox), recv(self.closed))[0] == 0:
                self.close()
            self.stopped.close()

        def close(self):
            def close_once():
                self.closed.close()
                self.stopped.recv_ok()

            self.once.do(close_once)

    def main():
        c = Connection()
        go(c.dispatcher_loop)
        c.inbox.send("config")
        c.stopped.recv_ok()

    go(main)
