"""Kernels from etcd and gRPC. MIT, see LICENSE; changes by the Go authors BSD, see LICENSE-GO."""

from __future__ import annotations

import random

import gort
from gort import Chan, Mutex, RWMutex, WaitGroup, go, recv, select, send

from goker.tools import Context, kernel, pause


@kernel("main [sync.RWMutex.Lock]")
def etcd5509():
    class Client:
        def __init__(self):
            self.mu = RWMutex()
            self.cancel = Context().cancel

        def close(self):
            with self.mu:
                if self.cancel is None:
                    return
                self.cancel()
                pause()
                self.cancel = None
                self.mu.unlock()
                self.mu.lock()

    class Remote:
        def __init__(self, client):
            self.client = client
            self.mu = Mutex()

        def acquire(self):
            while True:
                self.client.mu.rlock()
                closed = self.client.cancel is None
                self.mu.lock()
                self.mu.unlock()
                if closed:
                    return  # the read lock stays
                self.client.mu.runlock()
                gort.gosched()

    def main():
        client, done = Client(), Chan()

        def getter():
            Remote(client).acquire()
            done.close()

        go(getter)
        pause()
        client.close()
        done.recv_ok()

    go(main)


@kernel("main [sync.RWMutex.RLock]")
def etcd6708():
    class Client:
        def __init__(self):
            self.mu = RWMutex()

        def do(self):
            self.mu.rlock()
            self.mu.runlock()

        def sync(self):
            with self.mu:
                Members(self).leader()

    class Members:
        def __init__(self, client):
            self.client = client

        def leader(self):
            self.client.do()

    def main():
        Client().sync()

    go(main)


@kernel("status [chan send]")
def etcd6857():
    class Node:
        def __init__(self):
            self.statuses, self.stopping, self.done = Chan(), Chan(), Chan()

        def status(self):
            pause()
            c = Chan()
            self.statuses.send(c)
            return c.recv()

        def run(self):
            while True:
                i, c, _ = select(recv(self.statuses), recv(self.stopping))
                if i == 1:
                    self.done.close()
                    return
                c.send("status")

        def stop(self):
            pause()
            if select(send(self.stopping, None), recv(self.done))[0] == 0:
                self.done.recv_ok()

    n = Node()
    go(n.run)
    go(n.status)
    go(n.stop)


@kernel("stop [chan receive]", "worker [sync.Mutex.Lock]")
def etcd6873():
    class Broadcasts:
        def __init__(self):
            self.mu, self.updates, self.done = Mutex(), Chan(1), Chan()

            def worker():
                for _ in self.updates:
                    pause()
                    self.mu.lock()
                    self.mu.unlock()
                self.done.close()

            go(worker)

        def stop(self):
            with self.mu:
                self.updates.close()
                self.done.recv_ok()

    wbs = Broadcasts()
    wbs.updates.try_send(object())
    go(wbs.stop)


@kernel(
    "main [sync.WaitGroup.Wait]",
    "authenticate [chan send]",
    "authenticate [sync.RWMutex.Lock]",
    "run [sync.RWMutex.Lock]",
)
def etcd7492():
    class Keeper:
        def __init__(self, delete):
            self.tokens = {}
            self.added, self.stops, self.delete = Chan(1), Chan(), delete
            go(self.run)

        def run(self):
            ticker = gort.Ticker(1e-5)
            while True:
                i, wait, _ = select(recv(self.added), recv(ticker.c), recv(self.stops))
                pause()
                if i == 0:
                    self.tokens["1"] = True
                elif i == 1:
                    for token in list(self.tokens):
                        self.delete(token)
                        del self.tokens[token]
                else:
                    wait.send(None)
                    return

        def stop(self):
            wait = Chan()
            self.stops.send(wait)
            wait.recv()

    class Tokens:
        def __init__(self):
            self.mu = RWMutex()
            self.keeper = Keeper(self.delete)

        def delete(self, token):
            with self.mu:
                pass

        def assign(self):
            self.mu.lock()
            pause()
            self.keeper.added.send(None)
            self.mu.unlock()

    def main():
        tokens, wg = Tokens(), WaitGroup()

        def authenticate():
            tokens.assign()
            tokens.assign()
            wg.done()

        wg.add(3)
        for _ in range(3):
            go(authenticate)
        wg.wait()
        tokens.keeper.stop()

    go(main)


@kernel("worker [chan receive]", "worker [sync.Mutex.Lock]", "election [sync.WaitGroup.Wait]")
def etcd7902():
    def election():
        following = [Chan()]
        mu, wg = Mutex(), WaitGroup()

        def worker(i):
            for _ in range(5):
                with mu:
                    mine = following[0]
                pause()
                mu.lock()
                if i == 0:
                    following[0].close()
                    following[0] = Chan()
                mine.recv_ok()
                mu.unlock()
            wg.done()

        wg.add(3)
        for i in range(3):
            go(worker, i)
        wg.wait()

    go(election)


@kernel("main [sync.RWMutex.Lock]")
def etcd10492():
    class Lessor:
        def __init__(self):
            self.mu, self.checkpointer = RWMutex(), None

        def checkpoint(self):
            with self.mu:
                pass

        def renew(self):
            with self.mu:
                self.checkpointer()

    def main():
        lessor = Lessor()
        lessor.checkpointer = lambda: lessor.checkpoint()
        lessor.renew()

    go(main)


@kernel("worker [chan send]")
def grpc660():
    class Client:
        def __init__(self):
            self.stop = Chan()

        def close_loop(self):
            while True:
                done = Chan()

                def worker(done=done):
                    done.send(random.random() > 0.7)

                go(worker)
                if select(recv(self.stop), recv(done))[0] == 0:
                    return

    client = Client()
    go(client.close_loop)
    go(client.stop.send, True)


@kernel("serve [sync.Mutex.Lock]", "main [sync.Mutex.Lock]")
def grpc795():
    class Server:
        def __init__(self):
            self.mu, self.drain = Mutex(), False

        def graceful_stop(self):
            self.mu.lock()
            if self.drain:
                self.mu.lock()
                return
            self.drain = True
            self.mu.unlock()

        def serve(self):
            pause()
            self.mu.lock()
            self.mu.unlock()

    def main():
        server = Server()
        go(server.serve)
        for _ in range(3):
            pause()
            server.graceful_stop()

    go(main)


@kernel("resetter [chan receive]")
def grpc862():
    class AddrConn:
        def __init__(self, cc):
            self.cc, self.ctx = cc, Context()

        def reset_transport(self):
            self.ctx.done.recv_ok()

    class ClientConn:
        def __init__(self):
            self.ctx, self.conns = Context(), []

        def reset_addr_conn(self):
            ac = AddrConn(self)
            self.conns.append(ac)
            ac.reset_transport()

        def close(self):
            for ac in self.conns:
                ac.ctx.cancel()

    def dial(ctx):
        cc = ClientConn()

        def resetter():
            cc.reset_addr_conn()

        go(resetter)
        if ctx.done.closed:
            cc.close()

    ctx = Context()
    go(dial, ctx)
    go(ctx.cancel)


@kernel("reader [chan receive]")
def grpc1275():
    class Stream:
        def __init__(self):
            self.buffer = Chan()

        def read(self):
            select(recv(self.buffer))

    def main():
        stream, done = Stream(), Chan()

        def reader():
            stream.read()
            done.close()

        go(reader)
        timer = gort.Timer(1e-6)
        select(recv(done), recv(timer.c))

    go(main)


@kernel("dialer [chan receive]")
def grpc1424():
    def main():
        addresses, wait = Chan(), Chan(1)

        def watcher(done):
            for _ in addresses:
                pass

        def dialer():
            done = Chan()
            go(watcher, done)
            done.recv()
            wait.close()

        go(dialer)
        addresses.close()

    go(main)


@kernel("keepalive [chan receive]", "new_stream [sync.Mutex.Lock]")
def grpc1460():
    class Client:
        def __init__(self):
            self.mu, self.awaken, self.streams = Mutex(), Chan(), []

        def keepalive(self):
            self.mu.lock()
            if not self.streams:
                self.awaken.recv()
                pause()
            self.mu.unlock()

        def new_stream(self):
            pause()
            self.mu.lock()
            pause()
            self.streams.append(1)
            if len(self.streams) == 1:
                self.awaken.try_send(None)
            self.mu.unlock()

    client = Client()
    go(client.keepalive)
    go(client.new_stream)


@kernel("main [chan receive]", "looper [sync.Mutex.Lock]", "expire [sync.Mutex.Lock]")
def grpc3017():
    class Entry:
        def __init__(self, sc):
            self.sc, self.abort, self.cancel = sc, False, None

    class Cache:
        def __init__(self):
            self.mu, self.entries, self.addresses = Mutex(), {}, {}

        def new_sub_conn(self):
            with self.mu:
                entry = self.entries.pop(1, None)
                if entry is not None:
                    entry.cancel()
                    return entry.sc
                self.addresses[1] = 1
                return 1

        def remove_sub_conn(self, sc):
            with self.mu:
                if sc not in self.addresses or 1 in self.entries:
                    return
                entry = self.entries[1] = Entry(sc)

                def expire():
                    pause()
                    self.mu.lock()
                    if entry.abort:
                        return  # the lock stays
                    self.addresses.pop(sc, None)
                    self.entries.pop(1, None)
                    self.mu.unlock()

                timer = gort.after_func(1e-9, expire)

                def cancel():
                    if not timer.stop():
                        entry.abort = True

                entry.cancel = cancel

    def main():
        done, cache = Chan(), Cache()
        sc = cache.new_sub_conn()

        def looper(sc):
            for _ in range(50):
                cache.remove_sub_conn(sc)
                pause()
                sc = cache.new_sub_conn()
            done.close()

        go(looper, sc)
        done.recv_ok()

    go(main)
