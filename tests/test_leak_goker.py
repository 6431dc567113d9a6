"""gort.leak.find finds what Go's leak profile finds in the GoKer kernels, and nothing else."""

from __future__ import annotations

import random

import goker.cockroach
import goker.cockroach_more
import goker.etcd_grpc
import goker.hugo_istio
import goker.kubernetes
import goker.moby  # noqa: F401 - they register themselves
import gort
import pytest
from goker.tools import KERNELS, end_all, settle
from gort import leak

COPIES = 20  # of a kernel at a time: each takes another way
ROUNDS = 30


def test_all_kernels_of_go_are_here():
    assert len(KERNELS) == 63


def who(one, names):
    """The entry of `names` that describes a leak, or what it is."""
    for name in names:
        function, reason = name[:-1].split(" [")
        if reason == one.reason and f"in {function}\n" in one.stack:
            return name
    return f"{one.stack} [{one.reason}]"


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
