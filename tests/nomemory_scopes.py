"""Operations for tests/nomemory.py on error groups and scopes."""

from __future__ import annotations

import gort
from nomemory_values import FAILED, add, reported

# Without memory for a traceback CPython raises one of these in place of the exception.
REFUSED = (MemoryError, SystemError)


def leaves(error):
    """The exceptions in one, which may be a group."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves(inner)]


def fails_beside_who_waits(start):
    """What a function that did raise has raised comes out, and nobody is left waiting."""
    gate, error, did_raise = gort.Chan(), ValueError("it"), [False]
    # CPython 3.11 crashes without memory for a thread state: have some.
    ready = gort.Chan()
    made = [gort.go(ready.recv_ok) for _ in range(4)]
    gort.gosched()
    ready.close()
    for g in made:
        g.join()

    def fail():
        did_raise[0] = True
        raise error

    def act():
        try:
            return start(gate, fail)
        except BaseException as raised:  # noqa: BLE001 - verify looks at it
            return raised

    def verify(raised):
        while gort.num_goroutine() > 2:
            gort.gosched()
        found = leaves(raised)
        refused = any(isinstance(e, REFUSED) for e in found)
        assert not did_raise[0] or error in found or refused, found
        assert all(isinstance(e, (ValueError, *REFUSED)) for e in found), found
        if refused:
            reported.append(gort.ExceptHookArgs(None, MemoryError()))

    return act, verify


def waits_for_either(gate, ctx):
    """What a goroutine of the group does: no lambda, as tests/nomemory.py says."""
    gort.select(gort.recv(gate), gort.recv(ctx.done()))


def fails_in_a_group():
    """An error group whose context ends who waits."""

    def start(gate, fail):
        group, ctx = gort.errgroup.with_context(gort.context.background())
        try:
            group.go(waits_for_either, gate, ctx)
            group.go(fail)
        finally:
            gate.close()
            group.wait()

    return fails_beside_who_waits(start)


def fails_in_a_scope():
    """A scope, which ends who waits."""

    def start(gate, fail):
        with gort.scope() as s:
            s.go(gate.recv)
            s.go(fail)

    return fails_beside_who_waits(start)


def maps_in_a_scope():
    """Results of a map are there, or MemoryError."""

    def act():
        try:
            with gort.scope() as s:
                return list(s.map(add, [1, 2, 3], 2))
        except BaseExceptionGroup as group:
            assert group.split(REFUSED)[1] is None, group
            raise MemoryError from None

    def verify(outcome):
        while gort.num_goroutine() > 2:
            gort.gosched()
        assert outcome is FAILED or outcome == [1, 2, 3]

    return act, verify


OPERATIONS = {f.__name__: f for f in (fails_in_a_group, fails_in_a_scope, maps_in_a_scope)}
