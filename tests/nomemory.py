"""Programs for tests/test_nomemory.py: each operation with its n-th allocation refused, for all n.

An operation is a function that makes its subjects and gives `act`, which alone runs without memory,
and `verify(outcome)`, which is told what `act` returned, or FAILED after a MemoryError, and asserts
that nothing is lost. Values are things of their own, so that a lost one is noticed.

`act` makes no function, by lambda, def or a generator expression: where one is refused memory
CPython 3.12.1 and 3.13.0 let go of its code once too often (python/cpython#122752; 3.11.7, 3.14.10
and 3.15.2 do not). The code is freed while its maker still refers to it, and the process crashes
later, wherever that memory has gone, in the collector for instance.
"""

from __future__ import annotations

import contextvars
import gc
import sys

import gort
import nomemory_http
import nomemory_library
import nomemory_net
import nomemory_observe
import nomemory_scopes
from nomemory_values import FAILED, LIMIT, Value, add, reported, use_up_tuples

CLEAN = 30  # allocations that may be refused without anybody noticing, one after another
VARIABLE = contextvars.ContextVar("variable", default=0)


def starts_with_keywords():
    """go() with all it may be given."""
    return lambda: gort.go(add, 1, b=2), lambda g: g is FAILED or joins(g, 3)


def spawns():
    """spawn() with all it may be given."""
    group = gort.Group("x")

    def act():
        return gort.spawn(add, [1], {"b": 2}, name="x", priority=1, group=group)

    return act, lambda g: g is FAILED or joins(g, 3)


def joins(g, result):
    """Check what becomes of a goroutine: its result, or MemoryError for want of a stack."""
    try:
        assert g.join(timeout=LIMIT) == result
    except MemoryError:
        pass


def starts_in_a_context():
    """The context of a goroutine is a copy."""
    context = contextvars.copy_context()
    context.run(VARIABLE.set, 5)
    return lambda: context.run(gort.go, VARIABLE.get), lambda g: g is FAILED or joins(g, 5)


def starts_and_joins():
    """The goroutine runs without memory, too."""
    return lambda: gort.go(add, 1, b=2).join(timeout=LIMIT), lambda r: r in (FAILED, 3)


def starts_on_new_stacks():
    """A goroutine has a stack and a state of the interpreter's, or ends with MemoryError."""
    gate, made = gort.Chan(), []
    gort.memory.trim()  # nothing is kept for the next one

    def act():
        while len(made) < 3:
            made.append(gort.go(gate.recv_ok))
        gort.gosched()

    def verify(_):
        gate.close()
        for g in made:
            joins(g, (None, False))

    return act, verify


def makes_channels():
    """Channels, with and without a buffer."""
    return lambda: (gort.Chan(), gort.Chan(3)), lambda _: None


def sends_to_a_buffer():
    """A value is in the channel exactly if its send did not raise."""
    ch = gort.Chan(2)

    def verify(outcome):
        assert len(ch) == (outcome is not FAILED)

    return lambda: ch.send(Value(), timeout=LIMIT), verify


def receiving(receive):
    """Make an operation of `receive`, from a channel whose value a parked goroutine sends."""

    def operation():
        ch, value = gort.Chan(), Value()
        g = gort.go(ch.send, value)
        while g.status != "chan send":
            gort.gosched()
        used_up = use_up_tuples()

        def verify(outcome):
            used_up.clear()
            if outcome is FAILED:
                outcome = ch.recv(timeout=LIMIT)
            assert outcome is value or value in outcome
            g.join(timeout=LIMIT)

        return lambda: receive(ch), verify

    return operation


def waits_to_receive(receive):
    """Make an operation of `receive`, which parks until another goroutine sends."""

    def operation():
        ch, value, gate = gort.Chan(), Value(), gort.Chan(1)

        def late():
            gate.recv()
            ch.send(value)

        g = gort.go(late)
        while g.status != "chan receive":
            gort.gosched()
        used_up = use_up_tuples()

        def act():
            gate.send(None)
            return receive(ch)

        def verify(outcome):
            used_up.clear()
            if outcome is FAILED:
                gate.try_send(None)
                outcome = ch.recv(timeout=LIMIT)
            assert outcome is value or value in outcome
            g.join(timeout=LIMIT)

        return act, verify

    return operation


def selects_among_many():
    """The number of a case may need memory of its own."""
    channels = [gort.Chan(1) for _ in range(400)]
    value = Value()
    channels[399].send(value)
    cases = [gort.recv(ch) for ch in channels]

    def verify(outcome):
        if outcome is FAILED:
            assert channels[399].recv(timeout=LIMIT) is value
        else:
            assert outcome == (399, value, True)

    return lambda: gort.select(*cases), verify


def selects_to_send():
    """A value is in the channel exactly if select did not raise."""
    ch, other = gort.Chan(1), gort.Chan()

    def verify(outcome):
        assert len(ch) == (outcome is not FAILED)

    return lambda: gort.select(gort.send(ch, Value()), gort.recv(other)), verify


def select_receive(ch):
    """Receive from `ch` by a select that could do something else."""
    return gort.select(gort.recv(ch), gort.recv(None), timeout=LIMIT)


def select_or_not(ch):
    """Receive from `ch` if that needs no waiting."""
    return gort.select(gort.recv(ch), default=True)


def counts_in_a_group():
    """A WaitGroup and a goroutine that says it is done."""
    group, made = gort.WaitGroup(), [None]

    def act():
        made[0] = group.go(add, 1)
        made[0].join(timeout=LIMIT)
        group.wait(timeout=LIMIT)

    def verify(_):
        if made[0] is not None:
            try:
                assert made[0].join(timeout=LIMIT) == 1
            except MemoryError:
                return  # as in Go, an exception in the function does not count as done
        group.wait(timeout=LIMIT)

    return act, verify


def locks():
    """Every lock, taken and let go."""
    mutex, rw, semaphore = gort.Mutex(), gort.RWMutex(), gort.Semaphore(2)

    def act():
        with mutex, rw.reading(), semaphore:
            pass
        with rw:
            pass

    def verify(_):
        assert mutex.try_lock() and rw.try_lock() and semaphore.try_acquire(2)

    return act, verify


def makes_locks():
    """Every kind of lock."""

    def act():
        mutex = gort.Mutex()
        return mutex, gort.RWMutex(), gort.WaitGroup(), gort.Semaphore(1), gort.Cond(mutex)

    return act, lambda _: None


def waits_for_a_condition():
    """Whoever waits has the lock afterwards."""
    mutex = gort.Mutex()
    cond, told = gort.Cond(mutex), [False]

    def tells():
        with mutex:
            told[0] = True
            cond.signal()

    def act():
        g = gort.go(tells)
        with mutex:
            while not told[0] and not g.done:
                try:
                    cond.wait(timeout=0.1)
                except TimeoutError:
                    pass

    def verify(_):
        assert mutex.try_lock()
        mutex.unlock()

    return act, verify


def sleeps():
    """A timer of the core's own."""
    return lambda: gort.sleep(0.0001), lambda _: None


def times():
    """Timers of all kinds; those that were made can be stopped."""
    made, out = [], gort.Chan(10)
    gc.collect()  # the floats that CPython keeps are gone: one that fires would need memory

    def act():
        made.append(gort.Timer(100))
        made.append(gort.Ticker(100))
        made.append(gort.after_func(100, out.send, 1))
        made[0].reset(200)
        made[2].reset(200)
        gort.after(0.0001).recv(timeout=LIMIT)

    def verify(_):
        for timer in made:
            timer.stop()
        assert len(out) == 0

    return act, verify


def calls_later():
    """What was set calls, or setting it raised."""
    out = gort.Chan(1)

    def verify(outcome):
        if outcome is not FAILED:
            try:
                assert out.recv(timeout=0.2) is None
            except TimeoutError:
                assert reported  # the goroutine had no stack

    return lambda: gort.after_func(0.0001, out.send, None), verify


def looks_around():
    """What there is to read."""

    def act():
        gort.goroutines(), gort.stats(), gort.dump(), gort.gc.stats(), gort.num_goroutine()
        repr(gort.current()), repr(gort.Chan(3))

    return act, lambda _: None


def cancels():
    """A goroutine that is cancelled ends."""
    g = gort.go(gort.Chan().recv)
    while g.status != "chan receive":
        gort.gosched()

    def verify(_):
        g.cancel()
        try:
            g.join(timeout=LIMIT)
        except (gort.Cancelled, MemoryError):
            pass
        assert g.done

    return g.cancel, verify


def iterates():
    """What a loop took is in its list, all else still in the channel."""
    ch, seen = gort.Chan(3), []
    for i in range(3):
        ch.send(i)
    ch.close()

    def act():
        for value in ch:
            seen.append(value)  # noqa: PERF402 - one allocation after another

    def verify(outcome):
        lost = 1 if outcome is FAILED else 0  # the one that append() had no room for
        assert len(seen) + len(ch) >= 3 - lost

    return act, verify


def derives_contexts():
    """One that could not be made leaves nothing below its parent, and no timer."""
    parent, cancel = gort.context.with_cancel(gort.context.background())
    valued = gort.context.with_value(parent, 1, 2)
    timers = gort.stats()["timers"]

    def act():
        return gort.context.with_timeout(valued, 3600)

    def verify(outcome):
        if outcome is FAILED:
            assert gort.stats()["timers"] == timers
            assert sum(type(x) is type(parent) for x in gc.get_referents(parent)) == 1  # its parent
        cancel()
        assert gort.stats()["timers"] == timers
        assert outcome is FAILED or type(outcome[0].err()) is gort.ContextCanceled

    return act, verify


def ends_contexts():
    """Cancelling needs no memory; what is asked afterwards may."""
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    below = gort.context.with_cancel(ctx)[0]
    done = below.done()

    def act():
        cancel()
        return below.err(), ctx.done(), below.cause(), str(ctx)

    def verify(_):
        assert done.closed
        assert below.err() is ctx.err()
        assert type(ctx.err()) is gort.ContextCanceled

    return act, verify


def waits_until_a_context_is_done():
    """The value that was not sent is the sender's; nobody stays in the queue."""
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    ch, gate = gort.Chan(), gort.Chan(1)

    def late():
        gate.recv()
        cancel()

    g = gort.go(late)
    while g.status != "chan receive":
        gort.gosched()

    def act():
        gate.send(None)
        try:
            ch.send(1, ctx=ctx)
        except gort.ContextCanceled:
            return True
        return False

    def verify(outcome):
        gate.try_send(None)
        g.join(timeout=LIMIT)
        assert outcome is FAILED or outcome
        assert ch.try_recv() == (None, False, False)

    return act, verify


ENDLESS = gort.context.with_cancel(gort.context.background())


def receive_in_a_context(ch):
    """Receive with a context."""
    return ch.recv(ctx=ENDLESS[0])


OPERATIONS = {
    f.__name__: f
    for f in (
        starts_with_keywords, spawns, starts_in_a_context, starts_and_joins,
        starts_on_new_stacks, makes_channels,
        sends_to_a_buffer, selects_among_many, selects_to_send, counts_in_a_group, locks,
        makes_locks, waits_for_a_condition, sleeps, times, calls_later, looks_around, cancels,
        iterates, derives_contexts, ends_contexts, waits_until_a_context_is_done,
    )
} | nomemory_library.OPERATIONS | nomemory_net.OPERATIONS | nomemory_scopes.OPERATIONS  # fmt: skip
OPERATIONS |= nomemory_http.OPERATIONS | nomemory_observe.OPERATIONS
if sys.version_info[:3] in ((3, 12, 1), (3, 13, 0)):
    for name in nomemory_observe.MAKE_FUNCTIONS:
        del OPERATIONS[name]
for receive in (
    gort.Chan.recv,
    gort.Chan.recv_ok,
    gort.Chan.try_recv,
    select_receive,
    select_or_not,
):
    OPERATIONS[f"{receive.__name__} of a sender"] = receiving(receive)
for receive in (gort.Chan.recv, gort.Chan.recv_ok, next, select_receive, receive_in_a_context):
    OPERATIONS[f"{receive.__name__} that waits"] = waits_to_receive(receive)


def sweep(name: str) -> None:
    """Do an operation again and again, with one more allocation granted each time.

    On the main goroutine and on another one.
    """
    import _testcapi

    gort.excepthook = reported.append
    gort.go(add, 1).join()  # whatever is made once

    def all_of_it():
        VARIABLE.set(0)  # CPython crashes where the first context of a thread is refused
        failures = granted = clean = 0
        while clean < CLEAN:  # then there are no more allocations to refuse
            act, verify = OPERATIONS[name]()
            outcome, before = FAILED, failures + len(reported)
            _testcapi.set_nomemory(granted, granted + 1)
            try:
                outcome = act()
            except MemoryError:
                failures += 1
            finally:
                _testcapi.remove_mem_hooks()
            verify(outcome)
            assert gort.go(add, 1).join(timeout=LIMIT) == 1
            granted += 1
            clean = clean + 1 if failures + len(reported) == before else 0
        return failures

    refused = (all_of_it(), gort.go(all_of_it).join())
    for args in reported:
        assert issubclass(args.exc_type, MemoryError), args
    print(name, "refused", *refused, "reported", len(reported))
