"""Kernels from Kubernetes. MIT, see LICENSE; changes by the Go authors BSD, see LICENSE-GO."""

from __future__ import annotations

import random

import gort
from gort import Chan, Cond, Mutex, Once, RWMutex, WaitGroup, go, recv, select, send

from goker.tools import Context, is_closed, kernel, pause


@kernel("loop [chan send]", "main [sync.Mutex.Lock]")
def kubernetes1321():
    class Mux:
        def __init__(self):
            self.mu, self.watchers = Mutex(), {}
            go(self.loop)

        def watch(self):
            watcher = self.watchers[0] = Chan()
            pause()
            return watcher

        def loop(self):
            for _ in range(10):
                with self.mu:
                    for result in list(self.watchers.values()):
                        result.send(None)
                        pause()
                gort.gosched()

        def stop_watching(self):
            with self.mu:
                watcher = self.watchers.pop(0, None)
                if watcher is not None:
                    watcher.close()

    def main():
        mux = Mux()
        mux.watch()
        mux.stop_watching()

    go(main)


@kernel("finisher [chan send]")
def kubernetes5316():
    def finish_request(timeout, fn):
        ch, errors = Chan(), Chan()

        def finisher():
            if fn():
                errors.send("error")
            else:
                ch.send(True)

        go(finisher)
        select(recv(ch), recv(errors), recv(gort.after(timeout)))

    def fn():
        gort.sleep(0.002)
        return random.random() > 0.5

    go(finish_request, 1e-6, fn)


@kernel("monitor [sync.Mutex.Lock]", "write_frame [chan send]")
def kubernetes6632():
    class Framer:
        def __init__(self):
            self.reset, self.lock, self.closed = Chan(), Mutex(), Chan()

        def monitor(self):
            reset = self.reset
            self.closed.recv()
            self.lock.lock()
            reset.close()
            self.reset = None
            self.lock.unlock()

        def write_frame(self):
            pause()
            with self.lock:
                if self.reset is not None:
                    self.reset.send(True)

    framer = Framer()

    def closer():
        pause()
        framer.closed.send(True)

    go(closer)
    go(framer.monitor)
    go(framer.write_frame)


@kernel("syncer [sync.RWMutex.Lock]", "set_pod_status [chan send]",
        may=["syncer [chan receive]", "set_pod_status [sync.RWMutex.Lock]"])  # fmt: skip
def kubernetes10182():
    class Manager:
        def __init__(self):
            self.lock, self.channel = RWMutex(), Chan()

        def start(self):
            def syncer():
                for _ in range(2):
                    pause()
                    self.channel.recv()
                    with self.lock:
                        pass

            go(syncer)

        def set_pod_status(self):
            with self.lock:
                self.channel.send(True)

    s = Manager()
    go(s.start)
    go(s.set_pod_status)
    go(s.set_pod_status)


@kernel(
    "worker [chan receive]", "worker [sync.Cond.Wait]",
    "main [chan receive]", may=["worker [select]"],
)  # fmt: skip
def kubernetes11298():
    def after(f):
        ch = Chan()

        def worker():
            pause()
            f()
            ch.close()

        go(worker)
        return ch

    def until(f, stop):
        while not is_closed(stop):
            f()
            gort.gosched()

    def notify(abort):
        lock = Mutex()
        cond = Cond(lock)

        def service_loop(finished):
            with lock:
                while not is_closed(finished):
                    ch = after(cond.wait)  # which unlocks for this one
                    if select(recv(finished), recv(ch))[0] == 0:
                        cond.signal()
                        ch.recv_ok()
                        return

        def signal():
            while not is_closed(abort):
                with lock:
                    cond.signal()
                pause()

        finished = after(lambda: until(signal, abort))
        until(lambda: service_loop(finished), abort)

    def main():
        done = Chan()
        notified = after(lambda: notify(done))

        def closer():
            pause()
            done.close()

        go(closer)
        notified.recv_ok()

    go(main)


@kernel("util [sync.RWMutex.Lock]", "add [sync.Mutex.Lock]")
def kubernetes13135():
    class WatchCache:
        def __init__(self):
            self.mu, self.on_replace, self.on_event = RWMutex(), None, None

        def add(self):
            with self.mu:
                self.on_event()

        def replace(self):
            with self.mu:
                self.on_replace()

    class Cacher:
        def __init__(self, stop):
            self.mu, self.initialized, self.once = Mutex(), WaitGroup(), Once()
            self.cache = WatchCache()
            self.initialized.add(1)

            def on_replace():
                self.once.do(self.initialized.done)
                self.mu.unlock()

            def on_event():
                with self.mu:
                    pass

            self.cache.on_replace, self.cache.on_event = on_replace, on_event

            def util():
                while not is_closed(stop):
                    self.mu.lock()
                    pause()
                    self.cache.replace()
                    pause()

            go(util)
            self.initialized.wait()

    def main():
        stop = Chan()
        cacher = Cacher(stop)
        go(cacher.cache.add)
        for _ in range(5):
            pause()
        stop.close()

    go(main)


@kernel("run [chan send]")
def kubernetes25331():
    class WatchChan:
        def __init__(self):
            self.ctx, self.results, self.errors = Context(), Chan(), Chan()

        def stop(self):
            self.errors.send("error")
            self.ctx.cancel()

        def run(self):
            i, error, _ = select(recv(self.errors), recv(self.ctx.done))
            if i == 0:
                self.ctx.cancel()
                self.results.send(bool(error))

    wc = WatchChan()
    go(wc.run)
    go(wc.stop)


@kernel("main [chan receive]", "locker [sync.RWMutex.Lock]", "pop [chan receive]")
def kubernetes26980():
    class Listener:
        def __init__(self):
            self.lock = RWMutex()
            self.cond, self.pending = Cond(self.lock), []

        def add(self, notification):
            with self.lock:
                self.pending.append(notification)
                self.cond.broadcast()

        def pop(self, stop):
            with self.lock:
                pause()
                while not self.pending:
                    if is_closed(stop):
                        return
                    self.cond.wait()
                select(recv(stop))

    def main():
        listener, stop, result = Listener(), Chan(), Chan()
        listener.add(1)
        pause()
        go(listener.pop, stop)

        def locker():
            pause()
            listener.lock.lock()
            result.close()

        go(locker)
        pause()
        result.recv_ok()
        listener.lock.unlock()
        stop.close()

    go(main)


@kernel("controller [sync.Mutex.Lock]", "deliverer [sync.RWMutex.Lock]",
        "stopper [sync.Mutex.Lock]", may=["deliverer [sync.Mutex.Lock]"])  # fmt: skip
def kubernetes30872():
    class Fifo:
        def __init__(self):
            self.lock = RWMutex()

        def has_synced(self):
            with self.lock:
                pass

        def pop(self, process):
            with self.lock:
                pause()
                process()

    class Informer:
        def __init__(self):
            self.mu, self.fifo, self.stop_chan = Mutex(), Fifo(), None

        def clusters_synced(self):
            with self.mu:
                pause()
                self.fifo.has_synced()

        def add_cluster(self):
            with self.mu:
                pass

        def start(self):
            with self.mu:
                stop = self.stop_chan = Chan()

                def controller():
                    while not is_closed(stop):
                        self.fifo.pop(self.add_cluster)
                        gort.gosched()

                go(controller)
                pause()

        def stop(self):
            with self.mu:
                self.stop_chan.close()

    def main():
        informer, stop = Informer(), Chan()
        informer.start()

        def stopper():
            stop.recv_ok()
            informer.stop()

        def deliverer():
            informer.clusters_synced()

        go(stopper)
        go(deliverer)
        stop.close()

    go(main)


@kernel("process [chan send]")
def kubernetes38669():
    class Watcher:
        def __init__(self, events):
            self.mu, self.input, self.result, self.stopped = Mutex(), Chan(), Chan(), False
            go(self.process, events)

        def process(self, events):
            for event in events:
                self.result.send(event)
            for _ in self.input:
                pass
            self.result.close()
            self.stop()

        def stop(self):
            with self.mu:
                if not self.stopped:
                    self.stopped = True
                    self.input.close()

    Watcher([1, 2]).stop()


@kernel("worker [sync.Cond.Wait]", "worker [sync.RWMutex.RLock]", "sync [sync.RWMutex.Lock]")
def kubernetes58107():
    class Queue:
        def __init__(self):
            self.lock = Mutex()
            self.cond = Cond(self.lock)

        def get(self):
            with self.lock:
                self.cond.wait()

    class Controller:
        def __init__(self):
            self.lock, self.queue, self.missing = RWMutex(), Queue(), Queue()

        def worker(self, queue):
            pause()
            with self.lock.reading():
                queue.get()

        def run(self):
            go(self.worker, self.queue)
            go(self.worker, self.missing)

        def sync(self):
            for _ in range(5):
                self.lock.lock()
                pause()
                self.lock.unlock()

    def start():
        controller = Controller()
        go(controller.run)
        go(controller.sync)
        for _ in range(3):
            controller.queue.cond.signal()
            controller.missing.cond.signal()
            pause()

    go(start)


@kernel("reconcile [sync.RWMutex.RLock]", "remove [sync.RWMutex.Lock]")
def kubernetes62464():
    class Memory:
        def __init__(self):
            self.mu = RWMutex()

        def get_or_default(self):
            with self.mu.reading():
                if not self.get():
                    self.get_default()

        def get(self):
            pause()
            with self.mu.reading():
                return random.randrange(10) > 5

        def get_default(self):
            with self.mu.reading():
                pass

        def set_default(self):
            with self.mu:
                pause()

    def reconcile(memory):
        memory.get_or_default()

    def remove(memory):
        pause()
        memory.get_default()
        memory.set_default()

    memory = Memory()
    go(reconcile, memory)
    go(remove, memory)


@kernel("main [chan receive]")
def kubernetes70277():
    def wait_for(wait, fn, done):
        c = wait(done)
        while True:
            ok = c.recv_ok()[1]
            if fn() or not ok:
                return

    def poller(interval, timeout):
        def wait(done):
            ch = Chan()

            def poll():
                tick, after = gort.Ticker(interval), gort.after(timeout)
                while True:
                    i = select(recv(tick.c), recv(after), recv(done))[0]
                    if i != 0:
                        break
                    select(send(ch, None), default=True)
                ch.close()

            go(poll)
            return ch

        return wait

    def main():
        stop, wait, dones = Chan(), poller(1e-4, 1e-2), []

        def wait_func(done):
            dones.append(done)
            return wait(done)

        wait_for(wait_func, lambda: True, stop)
        dones[0].recv()
        stop.close()

    go(main)
