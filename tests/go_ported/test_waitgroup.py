"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of sync/waitgroup_test.go. TestWaitGroupAlign is about memory layout; TestIssue76126 is that a panic
ends the process before Wait returns: here the exception is reported and Wait does not return.
"""

import pytest
from gort import Chan, WaitGroup, go, recv, select
from waiting import LIMIT, eventually, raises_text


def wait_group_round(wg1, wg2):
    n = 16
    wg1.add(n)
    wg2.add(n)
    exited = Chan(n)

    def worker():
        wg1.done()
        wg2.wait()
        exited.send(True)

    for _ in range(n):
        go(worker)
    wg1.wait()
    for _ in range(n):
        assert select(recv(exited), default=True)[0] == -1, "WaitGroup released group too soon"
        wg2.done()
    for _ in range(n):
        exited.recv(timeout=LIMIT)


def test_waitgroup():
    wg1, wg2 = WaitGroup(), WaitGroup()
    for _ in range(8):
        wait_group_round(wg1, wg2)


def test_waitgroup_misuse():
    wg = WaitGroup()
    wg.add(1)
    wg.done()
    with raises_text(RuntimeError, "sync: negative WaitGroup counter"):
        wg.done()


def test_waitgroup_race():
    for _ in range(1000):
        wg, n = WaitGroup(), []

        def count(wg=wg, n=n):
            n.append(1)
            wg.done()

        for _ in range(2):
            wg.add(1)
            go(count)
        wg.wait()
        assert len(n) == 2, "spurious wakeup from wait"


def test_waitgroup_go():
    wg, i = WaitGroup(), []
    wg.go(i.append, 1)
    wg.wait()
    assert i == [1]


def test_issue76126_exception_in_go_does_not_unblock_wait(reports):
    def fail():
        raise ValueError("test")

    wg = WaitGroup()
    wg.go(fail)
    eventually(lambda: reports)
    assert str(reports[0].exc_value) == "test"
    with pytest.raises(TimeoutError):
        wg.wait(timeout=0.001)
