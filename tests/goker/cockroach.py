"""Kernels from CockroachDB. MIT, see LICENSE; changes by the Go authors BSD, see LICENSE-GO."""

from __future__ import annotations

from gort import Chan, Cond, Mutex, RWMutex, WaitGroup, go, recv, select, send

from goker.tools import Context, RLocker, kernel, pause


@kernel("manage [sync.Mutex.Lock]")
def cockroach584():
    class Gossip:
        def __init__(self):
            self.mu = Mutex()
            self.closed = True

        def bootstrap(self):
            while True:
                self.mu.lock()
                if self.closed:
                    break
                self.mu.unlock()

        def manage(self):
            while True:
                self.mu.lock()
                if self.closed:
                    break
                self.mu.unlock()

    g = Gossip()

    def run():
        g.bootstrap()
        g.manage()

    go(run)


@kernel(
    "main [chan receive]",
    "closer [sync.WaitGroup.Wait]",
    "worker [chan receive]",
    may=["worker [sync.Mutex.Lock]"],
)
def cockroach1055():
    class Stopper:
        def __init__(self):
            self.stopper = Chan()
            self.stop_wg = WaitGroup()
            self.mu = Mutex()
            self.draining = 0
            self.drain = WaitGroup()

        def quiesce(self):
            with self.mu:
                self.draining = 1
                self.drain.wait()
                self.draining = 0

        def stop(self):
            with self.mu:
                self.draining = 1
                self.drain.wait()
                self.stopper.close()
                self.stop_wg.wait()

        def start_task(self):
            if self.draining == 0:
                with self.mu:
                    self.drain.add(1)

    def main():
        stoppers = [Stopper(), Stopper()]

        def worker(s):
            pause()
            s.start_task()
            s.stopper.recv_ok()
            s.stop_wg.done()

        for s in stoppers:
            s.stop_wg.add(1)
            go(worker, s)
        done = Chan()

        def closer():
            for s in stoppers:
                s.quiesce()
            for s in stoppers:
                s.stop()
            done.close()

        go(closer)
        done.recv_ok()

    go(main)


@kernel("drainer [chan receive]")
def cockroach10790():
    class Replica:
        def __init__(self):
            self.chans = [Chan(), Chan()]

        def begin_cmds(self, ctx):
            for ch in self.chans:
                if select(recv(ch), recv(ctx.done))[0] == 1:

                    def drainer():
                        for ch in self.chans:
                            ch.recv()

                    go(drainer)

        def send_chans(self, ctx):
            for ch in self.chans:
                pause()
                if select(send(ch, True), recv(ctx.done))[0] == 1:
                    return

    r, ctx = Replica(), Context()
    go(r.send_chans, ctx)
    go(r.begin_cmds, ctx)
    go(ctx.cancel)


@kernel("await_done [chan receive]")
def cockroach13197():
    class Tx:
        def __init__(self, ctx):
            self.ctx, self.cancel = ctx, ctx.cancel

        def await_done(self):
            self.ctx.done.recv_ok()

    def begin():
        tx = Tx(Context())
        go(tx.await_done)
        return tx

    begin()


@kernel("await_done [chan receive]")
def cockroach13755():
    class Rows:
        def init_context_close(self):
            ctx = Context()
            self.cancel = ctx.cancel
            go(self.await_done, ctx)

        def await_done(self, ctx):
            ctx.done.recv_ok()
            self.cancel()

    Rows().init_context_close()


@kernel("worker [chan send]", "main [sync.WaitGroup.Wait]")
def cockroach1462():
    class Stopper:
        def __init__(self):
            self.stopper = Chan()
            self.stop_wg = WaitGroup()
            self.mu = Mutex()
            self.drain = Cond(self.mu)
            self.tasks = 0

        def run_worker(self, f):
            self.stop_wg.add(1)

            def worker():
                try:
                    f()
                finally:
                    self.stop_wg.done()

            go(worker)

        def stop(self):
            with self.mu:
                pause()
                while self.tasks:
                    self.drain.wait()
            self.stopper.close()
            self.stop_wg.wait()

    def main():
        stopper, events = Stopper(), Chan()

        def transport():
            while not stopper.stopper.closed:
                events.send(0)

        def process_events():
            while select(recv(events), recv(stopper.stopper))[0] == 0:
                pause()

        stopper.run_worker(transport)
        stopper.run_worker(process_events)
        stopper.stop()

    go(main)


@kernel("main [sync.RWMutex.RLock]", "start [sync.RWMutex.Lock]")
def cockroach16167():
    class Executor:
        def __init__(self):
            self.mu = RWMutex()
            self.cond = Cond(RLocker(self.mu))

        def start(self):
            with self.mu:
                pause()

        def exec_parsed(self, locker):
            locker.lock()
            pause()
            self.get_database_cache()
            locker.unlock()

        def get_database_cache(self):
            with self.mu.reading():
                pass

    def main():
        e = Executor()
        go(e.start)
        e.exec_parsed(RLocker(e.mu))

    go(main)


@kernel("splitter [chan send]")
def cockroach18101():
    size = 6

    def restore(ctx):
        ready = Chan(size)

        def splitter():
            for i in range(size + 2):
                ready.send(i != 0)
            ready.close()

        go(splitter)
        for _ in ready:
            ctx.done.recv_ok()
            return

    ctx = Context()
    go(restore, ctx)
    go(ctx.cancel)


@kernel("process_raft [select]", "start [select]")
def cockroach2448():
    done, events, callbacks = Chan(), Chan(), Chan()

    def process_raft():
        while True:
            i, callback, _ = select(recv(events), recv(done))
            if i == 1:
                return
            pause()
            callback()

    def callback():
        select(send(callbacks, pause), recv(done))

    def start():
        while True:
            i, call, _ = select(recv(done), recv(callbacks), default=True)
            if i == 0:
                return
            if i == 1:
                call()
            else:
                select(send(events, callback), recv(done))
                pause()

    go(process_raft)
    go(start)


@kernel("main [chan send]")
def cockroach24808():
    class Compactor:
        def __init__(self):
            self.ch = Chan(1)

        def start(self, stopper):
            self.ch.send(None)

            def work():
                while select(recv(stopper), recv(self.ch))[0] == 1:
                    pass

            go(work)

    def main():
        stopper, compactor = Chan(), Compactor()
        compactor.ch.send(None)
        compactor.start(stopper)
        stopper.close()

    go(main)


@kernel("main [chan receive]")
def cockroach25456():
    class Store:
        def __init__(self, quiescer):
            self.quiescer = quiescer

    class Queue:
        def process(self, store):
            store.quiescer.recv()

    def main():
        store, queue = Store(Chan()), Queue()
        for _ in range(2):
            queue.process(store)

    go(main)
