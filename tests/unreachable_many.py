"""Programs for tests/test_gc_unreachable_more.py: many cases in one process, which has few objects besides theirs.

Each look at goroutines goes through all objects, of which pytest has ten times as many.
"""

from __future__ import annotations

import gc
import random

import goker.cockroach
import goker.cockroach_more
import goker.etcd_grpc
import goker.hugo_istio
import goker.kubernetes
import goker.moby  # noqa: F401 - they register themselves
import gort
from children import tell
from collecting import look
from goker.tools import KERNELS, end_all, settle
from gort import _unreachable, leak
from leaking import by_id, wait_parked
from waiting import eventually

COPIES = 5
SEEDS = range(60)


def collect():
    """It is on, and looks as often as there are full passes."""
    _unreachable._SHARE = 1e9
    gort.gc.collect_unreachable()


def kernels():
    """Every kernel of GoKer."""
    gort.excepthook = lambda args: None  # some unlock what is not locked as they end
    collect()
    tell(end_a_kernel, sorted(KERNELS))


def models():
    """Plans at random."""
    collect()
    tell(compare_a_plan, SEEDS)


def end_a_kernel(name):
    """What gort.leak finds is gone in the end. A condition that locks again has to have its lock."""
    function, _, _ = KERNELS[name]
    before = {g.id for g in gort.goroutines()}
    random.seed(name)
    for _ in range(COPIES):
        gort.go(function)
    settle(before)
    gc.collect()
    leaks = {one.id for one in leak.find() if one.id not in before}

    def left():
        look()
        return {g.id for g in gort.goroutines() if g.id in leaks and not locks_again(g)}

    eventually(lambda: not left(), what="end of the leaks")
    end_all(before)


def locks_again(g):
    """Whether a goroutine waits in Cond.wait for its lock, which an exception does not end."""
    return g.status.endswith("Lock") and "c.wait(" in gort.dump().split(f"goroutine {g.id} ")[1]


class Plan:
    """Goroutines and channels at random: who holds what, and who waits for what."""

    def __init__(self, rng):
        self.channels, self.goroutines = rng.randint(1, 8), rng.randint(1, 12)
        some = lambda n, most: {rng.randrange(n) for _ in range(rng.randint(0, most))}  # noqa: E731
        self.waits = [some(self.channels, 2) for _ in range(self.goroutines)]
        self.holds = [some(self.channels, 2) for _ in range(self.goroutines)]
        self.handles = [
            {h for h in some(self.goroutines, 1) if h < g} for g in range(self.goroutines)
        ]
        self.main_holds = some(self.channels, 2)
        self.main_handles = some(self.goroutines, 1)

    def alive(self):
        """The numbers of those that can still run: Go's rule, and who can be cancelled."""
        channels, live = set(self.main_holds), set(self.main_handles)
        while True:
            woken = {g for g in range(self.goroutines) if self.waits[g] & channels} | live
            woken |= {h for g in woken for h in self.handles[g]}
            reached = channels.union(*(self.holds[g] | self.waits[g] for g in woken))
            if woken == live and reached == channels:
                return live
            channels, live = reached, woken

    def begin(self):
        """Start them; the ids, and what main holds."""
        channels = [gort.Chan() for _ in range(self.channels)]
        gs = []

        def work(waits, holds, handles):
            cases = tuple(gort.recv(ch) for ch in waits)  # what a call makes on its way is missed
            gort.select(*cases)

        for waits, holds, handles in zip(self.waits, self.holds, self.handles, strict=True):
            args = [channels[n] for n in waits], [channels[n] for n in holds]
            gs.append(gort.go(work, *args, [gs[h] for h in handles]))
        ids = [g.id for g in gs]
        wait_parked(*ids)
        return ids, [channels[n] for n in self.main_holds], [gs[n] for n in self.main_handles]


def compare_a_plan(seed):
    """Those that end are those of the model."""
    plan = Plan(random.Random(seed))
    ids, *held = plan.begin()
    alive = {ids[n] for n in plan.alive()}
    dead = set(ids) - alive
    eventually(lambda: look() or not any(map(by_id, dead)), what="the end of the dead")
    look(2)
    assert all(map(by_id, alive))
    for ident in alive:
        by_id(ident).cancel()
    eventually(lambda: not any(map(by_id, ids)))
    del held
