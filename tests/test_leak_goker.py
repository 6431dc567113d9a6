"""gort.leak.find finds what Go's leak profile finds in the GoKer kernels, and nothing else."""

from __future__ import annotations

import gc
import random
import time

import goker.cockroach
import goker.cockroach_more
import goker.etcd_grpc
import goker.hugo_istio
import goker.kubernetes
import goker.moby  # noqa: F401 - they register themselves
import gort
import pytest
from goker.tools import KERNELS
from gort import leak
from waiting import eventually

COPIES = 20  # of a kernel at a time: each takes another way
ROUNDS = 30
SETTLING = 0.5  # seconds: goroutines that do not leak may go on for ever


def test_all_kernels_of_go_are_here():
    assert len(KERNELS) == 63


def who(one, names):
    """The entry of `names` that describes a leak, or what it is."""
    for name in names:
        function, reason = name[:-1].split(" [")
        if reason == one.reason and f"in {function}\n" in one.stack:
            return name
    return f"{one.stack} [{one.reason}]"


def settle(before):
    """Let the new goroutines go on until all of them wait, or for a while."""
    end = time.monotonic() + SETTLING
    quiet = ("chan ", "select", "sync.")
    while time.monotonic() < end:
        gort.sleep(0.003)
        new = [g for g in gort.goroutines() if g.id not in before]
        if all(g.status.startswith(quiet) for g in new) and not gort.stats()["timers"]:
            return


def end_all(before):
    """Cancel what is left."""
    for _ in range(5):
        for g in gort.goroutines():
            if g.id not in before:
                g.cancel()
        gort.gosched()
    eventually(lambda: all(g.id in before for g in gort.goroutines()), what="end of the kernel")
    gc.collect()  # what they raised as they ended is told now, to nobody


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_kernel_is_found(name):
    function, expected, may = KERNELS[name]
    gort.excepthook = lambda args: None  # cancelled ones unlock what is not locked
    before = {g.id for g in gort.goroutines()}
    missing = set(expected)
    for seed in range(ROUNDS):
        random.seed(seed)
        for _ in range(COPIES):
            gort.go(function)
        settle(before)
        found = {who(one, expected | may) for one in leak.find() if one.id not in before}
        end_all(before)
        assert not found - expected - may
        missing -= found
        if not missing:
            return
    assert not missing
