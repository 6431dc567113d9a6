"""Programs for tests/test_refused_native.py: the n-th request for native memory refused, for all n.

A library in front of libc counts what gort's own code asks malloc and the like for, and mmap and
mprotect, and refuses the n-th request. What CPython asks for is left alone: tests/nomemory.py does
that. The runtime's start, looks at libraries, `gort.leak` and forks are in `refusing_starts`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import tempfile
import threading

import gort
import nomemory
import nomemory_observe
from gort.cache import ConcurrentCache
from nomemory import FAILED, LIMIT, add
from waiting import eventually, parked

#: Calls are gort's if they return into its library. `refuse_from` says where that is, `refuse` that
#: the n-th call from now on is refused (0: none; -n: and all after it), and returns how many there were since the last
#: `refuse`. With TELL=1 in the environment whoever is refused is named on stderr.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
static uintptr_t low, high;
static long left, seen;
static int tells, armed, lasts;
void refuse_from(uintptr_t from, uintptr_t to, int tell) {
    void *first[2];
    backtrace(first, 2); /* asks for memory of its own at first */
    low = from; high = to; tells = tell;
}
long refuse(long n) {
    long before = __atomic_exchange_n(&seen, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&lasts, n < 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&left, n < 0 ? -n : n, __ATOMIC_SEQ_CST);
    __atomic_store_n(&armed, n != 0, __ATOMIC_SEQ_CST);
    return before;
}
static int refused(void *caller) {
    uintptr_t at = (uintptr_t)caller;
    if (!__atomic_load_n(&armed, __ATOMIC_RELAXED) || at < low || at >= high) return 0;
    __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    long now = __atomic_sub_fetch(&left, 1, __ATOMIC_SEQ_CST);
    if (now > 0 || (now < 0 && !lasts)) return 0;
    if (tells) {
        void *frames[30];
        backtrace_symbols_fd(frames, backtrace(frames, 30), 2);
    }
    errno = ENOMEM;
    return 1;
}
#define CALLER __builtin_return_address(0)
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
void *malloc(size_t n) { return refused(CALLER) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return refused(CALLER) ? NULL : __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return refused(CALLER) ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return refused(CALLER) ? NULL : __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    void *got = refused(CALLER) ? NULL : __libc_memalign(a, n);
    if (got == NULL) return ENOMEM;
    *p = got;
    return 0;
}
#define NEXT(name) static __typeof__(&name) next; \
    if (next == NULL) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
void *mmap(void *a, size_t n, int p, int f, int d, off_t o) {
    NEXT(mmap);
    return refused(CALLER) ? MAP_FAILED : next(a, n, p, f, d, o);
}
int mprotect(void *a, size_t n, int p) {
    NEXT(mprotect);
    return (p & PROT_WRITE) && refused(CALLER) ? -1 : next(a, n, p);
}
"""


def prepare():
    """Tell the library where gort's own code is."""
    import gort._core

    file, low, high = gort._core.__file__, 1 << 64, 0
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith(file):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                low, high = min(low, start), max(high, end)
    library = ctypes.PyDLL(None)
    library.refuse_from.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    library.refuse_from.restype = None
    library.refuse.argtypes = (ctypes.c_long,)
    library.refuse.restype = ctypes.c_long
    library.refuse_from(low, high, int(os.environ.get("TELL", "0")))
    return library.refuse


def starts_a_crowd():
    """More goroutines than there are descriptors, stacks, and room in queues."""
    ch, n = gort.Chan(), 700
    made = []

    def act():
        while len(made) < n:
            made.append(gort.go(ch.recv))

    def verify(_):
        for i in range(len(made)):
            g = made[i]
            while not g.done and g.status != "chan receive":
                gort.gosched()
        ch.close()
        for g in made:
            try:
                g.join(timeout=LIMIT)
            except (gort.ChanClosed, MemoryError):
                pass

    return act, verify


def fills_a_buffer():
    """What was sent is there, in order."""
    ch, sent = gort.Chan(200_000), []

    def act():
        for i in range(200_000):
            ch.send(i)
            sent.append(i)

    def verify(_):
        assert len(ch) == len(sent)
        assert [ch.recv() for _ in sent] == sent

    return act, verify


def fills_a_map():
    """What was stored is there; deleting shrinks the table, or leaves it."""
    m, stored = gort.Map(), {}

    def act():
        for i in range(3_000):
            m.store(i, i)
            stored[i] = i
        for i in range(2_950):
            m.delete(i)
            del stored[i]

    def verify(_):
        assert dict(m.items()) == stored and len(m) == len(stored)

    return act, verify


def fills_a_cache():
    """A table that grows: what is in it is found, and one more fits."""
    cache, put = ConcurrentCache(3_000), []

    def act():
        for i in range(3_000):
            cache.put(i, i, ttl=1000 if i % 2 else None)
            put.append(i)

    def verify(_):
        assert cache.keys() == put
        assert all(cache.get(i) == (i, True) for i in put)
        cache.put("one more", 1, ttl=1)

    return act, verify


def sleeps_in_a_crowd():
    """Timers of many."""
    made = []

    def act():
        for _ in range(300):
            made.append(gort.go(gort.sleep, 0.001))
        for g in made:
            g.join(timeout=LIMIT)

    def verify(_):
        for g in made:
            try:
                g.join(timeout=LIMIT)
            except MemoryError:
                pass

    return act, verify


def selects():
    """Somebody who waits in many cases."""
    channels = [gort.Chan() for _ in range(20)]
    value = nomemory.Value()
    sender = gort.go(channels[13].send, value)
    cases = [gort.recv(ch) for ch in channels]

    def verify(outcome):
        if outcome is FAILED:
            assert channels[13].recv(timeout=LIMIT) is value
        else:
            assert outcome == (13, value, True)
        sender.join(timeout=LIMIT)

    return lambda: gort.select(*cases, timeout=LIMIT), verify


def waits_in_select():
    """The same before the value is there."""
    channels, gate = [gort.Chan() for _ in range(20)], gort.Chan(1)
    value = nomemory.Value()

    def late():
        gate.recv()
        channels[13].send(value)

    sender = gort.go(late)
    parked(sender)
    cases = [gort.recv(ch) for ch in channels]

    def act():
        gate.send(None)
        return gort.select(*cases, timeout=LIMIT)

    def verify(outcome):
        if outcome is FAILED:
            gate.try_send(None)
            assert channels[13].recv(timeout=LIMIT) is value
        else:
            assert outcome == (13, value, True)
        sender.join(timeout=LIMIT)

    return act, verify


def orders():
    """Policies, priorities, groups."""
    made = []

    def act():
        for policy in ("mlfq", "fair", "fifo"):
            gort.set_policy(policy)
            group = gort.Group("g")
            made.extend(gort.spawn(add, (1, 2), group=group, priority=i) for i in range(5))
            for g in made:
                g.join(timeout=LIMIT)

    def verify(_):
        gort.set_policy("fifo")
        for g in made:
            nomemory.joins(g, 3)

    return act, verify


def gives_memory_back():
    """Stacks that are saved come back."""
    ch = gort.Chan()
    gs = [gort.go(ch.recv) for _ in range(300)]
    parked(*gs)

    def verify(_):
        for i in range(300):
            ch.send(i)
        assert sorted(g.join(timeout=LIMIT) for g in gs) == list(range(300))

    return gort.memory.trim, verify


def limits_memory():
    """A limit set and passed."""
    gate = gort.Chan()

    def act():
        gort.memory.set_limit(0)
        try:
            gort.go(gate.recv)
        except MemoryError:
            pass
        gort.memory.set_limit(None)

    return act, lambda _: gort.memory.set_limit(None)


def talks():
    """Sockets, of a client and a server."""
    made = []

    def serves(end):
        with end:
            while data := end.recv(100):
                end.sendall(data)

    def act():
        near, far = socket.socketpair()
        made.append(near)
        server = gort.go(serves, far)
        near.sendall(b"hello")
        assert near.recv(100) == b"hello"
        near.close()
        server.join(timeout=LIMIT)

    def verify(_):
        for end in made:
            end.close()

    return act, verify


def locks_of_threading():
    """A lock of C code that somebody waits for."""
    lock = threading.Lock()
    made = []

    def takes():
        with lock:
            return 3

    def act():
        with lock:
            made.append(gort.go(takes))
            gort.sleep(0.001)
        made[0].join(timeout=LIMIT)

    def verify(_):
        for g in made:
            nomemory.joins(g, 3)
        assert lock.acquire(timeout=LIMIT)

    return act, verify


def starts_threads():
    """Plain threads that use gort."""
    got = []

    def act():
        ch = gort.Chan()
        thread = threading.Thread(target=lambda: got.append(ch.recv(timeout=LIMIT)))
        thread.start()
        ch.send(1, timeout=LIMIT)
        thread.join()

    return act, lambda outcome: outcome is FAILED or got == [1] or 1 / 0


def tells():
    """Dumps and counts."""
    gs = [gort.go(gort.Chan().recv) for _ in range(5)]
    parked(*gs)

    def act():
        gort.dump(), gort.stats(), gort.memory.stats(), gort.goroutines(), repr(gs[0]), gs[0].name
        gort.gc.stats()

    def verify(_):
        for g in gs:
            g.cancel()
            try:
                g.join(timeout=LIMIT)
            except (gort.Cancelled, MemoryError):
                pass

    return act, verify


def dumps_on_a_signal():
    """A signal has a dump written, which says where it is not whole."""
    stderr = os.dup(2)
    file = tempfile.TemporaryFile()
    os.dup2(file.fileno(), 2)

    def act():
        gort.dump_on(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)

    def is_written():
        text = os.pread(file.fileno(), 1 << 20, 0)
        return b"goroutine 1 [" in text or b"no memory for the rest" in text

    def verify(outcome):
        try:
            assert outcome is FAILED or eventually(is_written)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.close()

    return act, verify


OPERATIONS = {
    **nomemory.OPERATIONS,
    **nomemory_observe.OPERATIONS,
    **{
        f.__name__: f
        for f in (
            starts_a_crowd, fills_a_buffer, fills_a_cache, fills_a_map, sleeps_in_a_crowd, selects,
            waits_in_select, orders, gives_memory_back, limits_memory, talks,
            locks_of_threading, starts_threads, tells, dumps_on_a_signal,
        )
    },
}  # fmt: skip


def sweep(name: str, lasts: bool = False) -> None:
    """Do an operation with its n-th request refused, for all n; then once more without.

    `lasts`: and all requests after it.
    """
    gort.excepthook = nomemory.reported.append
    refuse = prepare()
    gort.go(add, 1).join()
    n = most = failed = 0
    while True:
        n += 1
        act, verify = OPERATIONS[name]()
        outcome = FAILED
        refuse(-n if lasts else n)
        try:
            outcome = act()
        except MemoryError:
            failed += 1
        finally:
            seen = refuse(0)
        verify(outcome)
        assert gort.go(add, 1).join(timeout=LIMIT) == 1
        if seen < n:
            break
        most = max(most, seen)
    eventually(lambda: gort.num_goroutine() == 1)
    for args in nomemory.reported:
        assert issubclass(args.exc_type, MemoryError), args
    print(name, "requests", most, "failed", failed, "reported", len(nomemory.reported))
