"""The program of tests/test_leak_goker.py: leaks of every kernel are searched in a process with few objects besides."""

from __future__ import annotations

import random

import goker.cockroach
import goker.cockroach_more
import goker.etcd_grpc
import goker.hugo_istio
import goker.kubernetes
import goker.moby  # noqa: F401 - they register themselves
import gort
from children import tell
from goker.tools import KERNELS, end_all, settle
from gort import leak

COPIES = 20  # of a kernel at a time: each takes another way
ROUNDS = 30


def who(one, names):
    """The entry of `names` that describes a leak, or what it is."""
    for name in names:
        function, reason = name[:-1].split(" [")
        if reason == one.reason and f"in {function}\n" in one.stack:
            return name
    return f"{one.stack} [{one.reason}]"


def find_a_kernel(name):
    """All that leak are found, in some round, and nobody else in any."""
    function, expected, may = KERNELS[name]
    before = {g.id for g in gort.goroutines()}
    missing = set(expected)
    for seed in range(ROUNDS):
        random.seed(seed)
        for _ in range(COPIES):
            gort.go(function)
        settle(before)
        found = {who(one, expected | may) for one in leak.find() if one.id not in before}
        end_all(before)
        others = found - expected - may
        assert not others, others
        missing -= found
        if not missing:
            return
    assert not missing, missing


def main():
    """Every kernel of GoKer."""
    gort.excepthook = lambda args: None  # cancelled ones unlock what is not locked
    tell(find_a_kernel, sorted(KERNELS))
