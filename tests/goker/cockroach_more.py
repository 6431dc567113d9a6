"""More kernels from CockroachDB. MIT, see LICENSE; changes by the Go authors BSD, see LICENSE-GO."""

from __future__ import annotations

import random

import gort
from gort import Chan, Mutex, RWMutex, WaitGroup, go

from goker.tools import kernel, pause


@kernel("blocked_pusher [chan send]", "main [chan send]")
def cockroach35073():
    class Outbox:
        def __init__(self):
            self.data = Chan(16)

        def push(self):
            self.data.send(0)

        def start(self, wg):
            wg.add(1)
            go(wg.done)

    def main():
        outbox, wg, blocked = Outbox(), WaitGroup(), WaitGroup()
        for _ in range(16):
            outbox.push()
        blocked.add(1)

        def blocked_pusher():
            outbox.push()
            blocked.done()

        go(blocked_pusher)
        outbox.start(wg)
        wg.wait()
        outbox.push()

    go(main)


@kernel("main [chan send]")
def cockroach35931():
    class Flow:
        def __init__(self, streams):
            self.mu = Mutex()
            self.streams = streams

        def cancel(self):
            with self.mu:
                receivers = list(self.streams.values())
            for receiver in receivers:
                receiver.send(None)

    def main():
        left, right = Chan(1), Chan(1)
        left.send(None)
        Flow({0: left, 1: right}).cancel()

    go(main)


@kernel("force_raft_log_scan [sync.RWMutex.RLock]", "work [sync.RWMutex.Lock]")
def cockroach3710():
    class Store:
        def __init__(self):
            self.mu = RWMutex()
            self.queue = Mutex()
            self.replicas = [1, 2]

        def force_raft_log_scan(self):
            self.mu.rlock()
            pause()
            for _ in self.replicas:
                with self.queue:
                    self.raft_status()
            self.mu.runlock()

        def raft_status(self):
            with self.mu.reading():
                pass

        def process_raft(self):
            def work():
                pause()
                self.mu.lock()
                self.mu.unlock()

            go(work)

    store = Store()
    go(store.force_raft_log_scan)
    go(store.process_raft)


@kernel(
    "main [sync.WaitGroup.Wait]",
    "worker [sync.RWMutex.RLock]",
    "worker [sync.RWMutex.Lock]",
)
def cockroach6181():
    class Cache:
        def __init__(self):
            self.mu = RWMutex()

        def lookup(self):
            self.mu.rlock()
            pause()
            self.text()
            self.mu.runlock()
            self.mu.lock()
            self.mu.unlock()

        def text(self):
            with self.mu.reading():
                return "something here"

    def main():
        cache, wg = Cache(), WaitGroup()

        def worker():
            cache.lookup()
            wg.done()

        for _ in range(3):
            wg.add(1)
            go(worker)
        wg.wait()

    go(main)


@kernel("acquire [sync.Mutex.Lock]", "release [sync.Mutex.Lock]")
def cockroach7504():
    class Lease:
        def __init__(self):
            self.mu = Mutex()

    class Names:
        def __init__(self, leases):
            self.mu = Mutex()
            self.tables = dict(enumerate(leases))

        def get(self, key):
            with self.mu:
                lease = self.tables.get(key)
                if lease is not None:
                    with lease.mu:
                        pass

        def remove(self, key):
            with self.mu:
                pause()
                self.tables.pop(key, None)

    class State:
        def __init__(self, names, leases):
            self.mu = Mutex()
            self.names, self.active = names, leases

        def release(self, key):
            with self.mu:
                lease = self.active[key]
                with lease.mu:
                    gort.gosched()
                    self.names.remove(key)

    leases = [Lease(), Lease()]
    names = Names(leases)
    state = State(names, leases)

    def acquire():
        pause()
        names.get(0)

    def release():
        pause()
        state.release(0)

    go(acquire)
    go(release)


@kernel("output_log_entry [sync.Mutex.Lock]")
def cockroach9935():
    class Logging:
        def __init__(self):
            self.mu = Mutex()

        def output_log_entry(self):
            self.mu.lock()
            if random.randrange(8) % 4 > 0:
                self.exit()
            self.mu.unlock()

        def exit(self):
            with self.mu:
                pass

    go(Logging().output_log_entry)


@kernel("send_heartbeats [sync.Mutex.Lock]", "tick [sync.Mutex.Lock]")
def cockroach10214():
    class Store:
        def __init__(self):
            self.coalesced = Mutex()
            self.replicas = []

        def send_heartbeats(self):
            with self.coalesced:
                for _ in range(2):
                    for r in self.replicas:
                        r.report_unreachable()

    class Replica:
        def __init__(self, store):
            self.raft, self.mu, self.store = Mutex(), Mutex(), store

        def report_unreachable(self):
            with self.raft:
                pause()

        def tick(self):
            pause()
            with self.raft, self.mu:
                for _ in range(2):
                    with self.store.coalesced:
                        pass

    store = Store()
    store.replicas += [Replica(store), Replica(store)]
    go(store.send_heartbeats)
    go(store.replicas[0].tick)
