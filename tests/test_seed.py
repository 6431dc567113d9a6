"""The seeded mode: GORT_SEED gives an order of goroutines that can be had again, and others than the usual one."""

from __future__ import annotations

from children import check

ORDER = """
import gort
def main():
    order = []
    def body(name):
        for _ in range(4):
            order.append(name)
            gort.gosched()
    for g in [gort.go(body, name) for name in "abcdef"]: g.join()
    print("".join(order))
gort.run(main)
"""


def order_of(seed: int) -> str:
    return check(ORDER, GORT_SEED=str(seed)).strip()


def test_a_seed_gives_the_same_order_again():
    assert order_of(7) == order_of(7)


def test_seeds_give_other_orders():
    orders = [order_of(seed) for seed in range(1, 9)]
    assert all(sorted(order) == sorted("abcdef" * 4) for order in orders)
    assert len(set(orders)) == len(orders)
    usual = order_of(0)  # no seed: those that wait take turns
    assert usual == usual[:6] * 4
    assert usual not in orders


def test_a_seed_finds_what_the_usual_order_hides():
    """A config that is read before it is written, unless goroutines run as they were started."""
    program = """
    import gort
    def main():
        settings, results = {}, gort.Chan(1)
        writer = gort.go(lambda: settings.update(ready=True))
        gort.gosched()
        reader = gort.go(lambda: results.send(settings.get("ready", False)))
        print(results.recv())
    gort.run(main)
    """
    found = {seed: check(program, GORT_SEED=str(seed)).strip() for seed in range(9)}
    assert found[0] == "True"
    assert set(found.values()) == {"True", "False"}


def test_more_than_a_queue_holds_and_all_that_can_be_waited_for():
    """A thousand are ready at once: the global queue too; timers, descriptors, locks, blocking calls."""
    program = """
    import gort, os, socket, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
    def main():
        done = gort.Chan(0)
        for i in range(1000): gort.go(done.send, i)
        assert sorted(done.recv() for _ in range(1000)) == list(range(1000))
        a, b = socket.socketpair()
        lock = threading.Lock()
        def echo():
            for _ in range(50): a.sendall(a.recv(1))
        def ask():
            for _ in range(50):
                b.sendall(b"x")
                assert b.recv(1) == b"x"
        def locked():
            for _ in range(50):
                with lock: gort.sleep(0.0001)
        def sleep():
            for _ in range(5): time.sleep(0.001)
        for g in [gort.go(f) for f in (echo, ask, locked, locked, sleep)]: g.join(timeout=20)
        pid = os.fork()
        if pid == 0:
            g = gort.go(done.recv); done.send(5)
            os._exit(g.join())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        print("ok")
    gort.run(main)
    """
    for boundary in "10":
        check(program, "ok", GORT_SEED="3", GORT_BOUNDARY=boundary)


def test_the_choices_of_select_are_the_seeds_too():
    program = """
    import gort
    def main():
        a, b = gort.Chan(40), gort.Chan(40)
        for _ in range(40): a.send(0); b.send(0)
        print([gort.select(gort.recv(a), gort.recv(b))[0] for _ in range(40)])
    gort.run(main)
    """
    once, again, other = (check(program, GORT_SEED=seed) for seed in ("5", "5", "6"))
    assert once == again != other
