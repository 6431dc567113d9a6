"""Random programs against Go's rules, and the rules against logs that break them."""

from __future__ import annotations

import os

import pytest
from fuzz.fuzz import fuzz_all
from fuzz.oracle import Difference, Oracle

COUNT, FIRST = (
    int(os.environ.get("PROGRAMS", "1500")),
    int(os.environ.get("SEED", "0")),
)  # `make fuzz`

SHARED = {"chans": [0, 1], "mutexes": 1, "rwmutexes": 1, "semaphores": [2], "groups": 1}


@pytest.mark.timeout(300 + COUNT // 10)
def test_random_programs_do_what_gos_rules_say():
    def tell(done):
        print(f"\r{done:,} of {COUNT:,} programs", end="" if done < COUNT else "\n", flush=True)

    failed = fuzz_all(COUNT, FIRST, tell)
    assert not failed, failed


def log_of(*steps):
    """A log of goroutines that begin at once: (g, n, operation) starts, (g, n, "=", outcome) ends."""
    who = sorted({step[0] for step in steps})
    entries = [("begin", g) for g in who]
    for step in steps:
        kind = "end" if step[2] == "=" else "start"
        entries.append((kind, *step[:2], step[-1]))
    return entries, len(who)


def judge(*steps, waiting=(), chans=((0, False), (0, False))):
    entries, count = log_of(*steps)
    program = {**SHARED, "started": count, "goroutines": [[]] * count}
    Oracle(program, entries).check(set(waiting), list(chans))


RECV, SEND = ["recv", 0, None], ["send", 0, 7, None]
SELECT = ["select", [["recv", 0], ["send", 1, 9]], False, None]


def test_rules_allow_what_go_does():
    judge((0, 1, RECV), (1, 1, SEND), (1, 1, "=", None), (0, 1, "=", (7, True)))
    judge((0, 1, SELECT), (0, 1, "=", (1, None, True)), chans=((0, False), (1, False)))
    judge((0, 1, RECV), (1, 1, ["cancel", 0]), (1, 1, "=", True), (0, 1, "=", "cancelled"))
    judge((0, 1, RECV), waiting=(0,))


WRONG = {
    "another value": [(0, 1, RECV), (1, 1, SEND), (1, 1, "=", None), (0, 1, "=", (8, True))],
    "a value twice": [
        (0, 1, RECV), (1, 1, RECV), (2, 1, SEND), (2, 1, "=", None),
        (0, 1, "=", (7, True)), (1, 1, "=", (7, True)),
    ],
    "the second before the first": [
        (0, 1, RECV), (1, 1, RECV), (2, 1, SEND), (2, 1, "=", None), (1, 1, "=", (7, True)),
    ],
    "a case that is not ready": [(0, 1, SELECT), (0, 1, "=", (0, 7, True))],
    "a default beside a ready case": [
        (0, 1, [*SELECT[:2], True, None]), (0, 1, "=", (-1, None, False)),
    ],
    "nobody asked it to end": [(0, 1, RECV), (0, 1, "=", "cancelled")],
    "two in a mutex": [
        (0, 1, ["lock", "mutex", 0, None]), (0, 1, "=", None),
        (1, 1, ["lock", "mutex", 0, None]), (1, 1, "=", None),
    ],
    "a writer beside a reader": [
        (0, 1, ["lock", "read", 0, None]), (0, 1, "=", None),
        (1, 1, ["lock", "write", 0, None]), (1, 1, "=", None),
    ],
    "three of two units": [
        (0, 1, ["acquire", 0, 2, None]), (0, 1, "=", None),
        (1, 1, ["acquire", 0, 1, None]), (1, 1, "=", None),
    ],
    "a group of one that is left": [
        (0, 1, ["add", 0]), (0, 1, "=", None), (0, 2, ["wait", 0, None]), (0, 2, "=", None),
    ],
    "a join of who has not ended": [(0, 1, ["join", 1]), (1, 1, RECV), (0, 1, "=", "ended")],
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_rules_forbid(what):
    steps = WRONG[what]
    begun = {step[:2] for step in steps if step[2] != "="}
    waiting = {g for g, _ in begun - {step[:2] for step in steps if step[2] == "="}}
    with pytest.raises(Difference):
        judge(*steps, waiting=waiting)


IDLE = {
    "a mutex that is free": ["lock", "mutex", 0, None],
    "units that are free": ["acquire", 0, 1, None],
    "a group of nobody": ["wait", 0, None],
    "a channel with room": ["send", 1, 7, None],
}


@pytest.mark.parametrize("what", IDLE)
def test_rules_forbid_to_wait_for(what):
    with pytest.raises(Difference):
        judge((0, 1, IDLE[what]), waiting=(0,))
