"""Kernels from Moby, Knative Serving and Syncthing. MIT, see LICENSE; changes by the Go
authors BSD, see LICENSE-GO.
"""

from __future__ import annotations

import random

import gort
from gort import Chan, Cond, Mutex, Once, RWMutex, WaitGroup, go, recv, select, send

from goker.tools import is_closed, kernel, pause


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
