"""os.fork() by the main goroutine, by others and by threads: what goes on in the child, and in the parent."""

from __future__ import annotations

import pytest
from forking import run

PROCESSORS = pytest.mark.parametrize("processors", ["1", "3"])

# What the other goroutines do at the moment of the fork.
OTHERS = {
    "none": "gs = []",
    "parked": "ch = Chan(); gs = [go(ch.recv) for _ in range(200)] + [go(Chan().send, 1) for _ in range(50)]",
    "queued": "gs = [go(list) for _ in range(600)]",
    "asleep": "gs = [go(gort.sleep, 60) for _ in range(100)] + [go(time.sleep, 60) for _ in range(10)]",
    "in a blocking call": "r, w = os.pipe(); gs = [go(os.wait4, pid, 0) for pid in [forked(gort.sleep, 0.2)]]",
    "computing": "gs = [go(lambda: [gort.gosched() for _ in iter(int, 1)]) for _ in range(3)]",
    "in sockets": """
pairs = [socket.socketpair() for _ in range(50)]
gs = [go(a.recv, 10) for a, b in pairs]
""",
    "in locks": """
lock = threading.Lock(); lock.acquire()
mutex = gort.Mutex(); mutex.lock()
gs = [go(lock.acquire) for _ in range(20)] + [go(mutex.lock) for _ in range(20)]
""",
    "all of these": """
ch, lock = Chan(), threading.Lock(); lock.acquire()
pairs = [socket.socketpair() for _ in range(20)]
gs = [go(ch.recv) for _ in range(50)] + [go(gort.sleep, 60) for _ in range(20)]
gs += [go(a.recv, 10) for a, b in pairs] + [go(lock.acquire) for _ in range(10)]
gs += [go(lambda: [gort.gosched() for _ in iter(int, 1)])]
timers = [gort.after(60), gort.after_func(60, print), gort.Ticker(0.01)]
gs += [go(time.sleep, 60) for _ in range(10)]
""",
}


@PROCESSORS
@pytest.mark.parametrize("others", OTHERS)
def test_main_forks_and_everything_works_in_the_child(others, processors):
    run(
        f"{OTHERS[others]}\nsettle()\nassert in_child(use_everything) == 0\nprint('ok')",
        GORT_MAXPROCS=processors,
    )


@PROCESSORS
@pytest.mark.parametrize("others", OTHERS)
def test_goroutine_forks_and_everything_works_in_the_child(others, processors):
    run(
        f"{OTHERS[others]}\nsettle()\nassert go(in_child, use_everything).join(timeout=50) == 0\nprint('ok')",
        GORT_MAXPROCS=processors,
    )


@pytest.mark.parametrize("others", OTHERS)
def test_thread_forks_and_everything_works_in_the_child(others):
    run(f"""
{OTHERS[others]}
settle()
codes = []
t = threading.Thread(target=lambda: codes.append(in_child(use_everything)))
t.start(); t.join()
assert codes == [0]
print('ok')
""")


@pytest.mark.parametrize("boundary", ["0", "1"])
def test_fork_without_parking_calls_works(boundary):
    run(
        f"{OTHERS['parked']}\nassert in_child(use_everything) == 0\n"
        "assert go(in_child, use_everything).join(timeout=50) == 0\nprint('ok')",
        GORT_BOUNDARY=boundary,
    )


def test_fork_before_the_first_goroutine_works():
    run("assert in_child(use_everything) == 0\nuse_everything(alone=False)\nprint('ok')")


def test_runtime_used_by_a_thread_only_and_fork_by_main():
    run("""
t = threading.Thread(target=lambda: go(pow, 2, 5).join())
t.start(); t.join()
assert in_child(use_everything) == 0
print('ok')
""")


def test_both_processes_go_on_after_a_goroutine_forked():
    run("""
ch = Chan()
def other():
    for i in range(1000): ch.send(i)
def body():
    pid = forked(lambda: [use_everything(), gort.sleep(0.01)])
    total = sum(ch.recv() for _ in range(1000))
    return total, code_of(pid)
go(other)
assert go(body).join(timeout=50) == (499500, 0)
use_everything(alone=False)
print('ok')
""")


def test_forks_nest():
    run("""
def level(n):
    if n == 0:
        use_everything()
        return
    ch = Chan()
    ghosts = [go(ch.recv) for _ in range(20)]
    gort.sleep(0.001)
    assert go(in_child, level, n - 1).join(timeout=50) == 0
    assert in_child(level, n - 1) == 0
    for _ in ghosts: ch.send(n)
    for g in ghosts: assert g.join() == n
level(3)
print('ok')
""")


def test_who_waits_in_the_parent_gets_nothing_in_the_child():
    run("""
ch, full, rw, sem, wg = Chan(), Chan(1), gort.RWMutex(), gort.Semaphore(2), gort.WaitGroup()
full.send(0)
mutex, below = gort.Mutex(), gort.Mutex()
cond = gort.Cond(below)
mutex.lock(); rw.rlock(); sem.acquire(); wg.add(1)
def waits():
    with below: cond.wait()
gs = [go(ch.recv), go(full.send, 1), go(mutex.lock), go(rw.lock), go(sem.acquire, 2), go(wg.wait), go(waits)]
gs += [go(gort.select, gort.recv(ch), gort.send(full, 2))]
threads = [threading.Thread(target=ch.recv, daemon=True) for _ in range(5)]
for t in threads: t.start()
settle()
def body():
    for t in [threading.Thread(target=list) for _ in range(8)]: t.start(); t.join()
    ch2 = go(ch.send, "mine")
    assert ch.recv(timeout=40) == "mine"
    assert full.recv() == 0 and len(full) == 0
    full.send(5, timeout=40); assert full.recv() == 5
    mutex.unlock(); mutex.lock(timeout=40)
    rw.rlock(timeout=40); rw.runlock(); rw.runlock(); rw.lock(timeout=40)
    sem.acquire(timeout=40); sem.release(); sem.release()
    wg.done(); wg.wait(timeout=40)
    cond.broadcast()
    for g in gs:
        assert g.done and not g.cancel() and g.status == "dead", g
        try: g.join()
        except gort.RuntimeStopped: pass
        else: raise AssertionError("joined")
    assert gort.goroutines() == [g for g in gort.goroutines() if g not in gs]
    use_everything()
assert in_child(body) == 0
assert go(in_child, body).join(timeout=50) == 0
for _ in range(7): ch.send(1)
print('ok')
""")


def test_timers_do_not_fire_in_the_child_and_can_be_set_again():
    run("""
fired = Chan(100)
def case(start):
    timer, ticker, call = gort.Timer(1), gort.Ticker(1), gort.after_func(1, fired.send, 1)
    def body():
        gort.sleep(1.2)
        assert len(fired) == 0 and not timer.stop() and not call.stop()
        for t in (timer, ticker, call): t.reset(0.01)
        assert timer.c.recv(timeout=40) and ticker.c.recv(timeout=40) and fired.recv(timeout=40)
        ticker.stop()
    assert start(body) == 0
    assert fired.recv(timeout=40) and timer.c.recv(timeout=40) and ticker.c.recv(timeout=40)
case(in_child)
case(lambda body: go(in_child, body).join(timeout=50))
print('ok')
""")


@PROCESSORS
@pytest.mark.parametrize("place", ["body()", "go(body).join()", "thread(body)"])
def test_many_forks_while_others_hammer(place, processors):
    run(
        f"""
stop, there, back = [], Chan(), Chan(3)
def ping():
    while not stop: there.send(1); back.recv()
def pong():
    while True: there.recv(); back.send(2)
def sleeps():
    while not stop: gort.sleep(0.0001)
def blocks():
    while not stop: time.sleep(0.0002)
def threads():
    while not stop:
        ch = Chan()
        t = threading.Thread(target=ch.send, args=(1,)); t.start(); ch.recv(); t.join()
def sockets():
    a, b = socket.socketpair()
    while not stop: go(a.send, b"x"); b.recv(1)
def thread(body):
    t = threading.Thread(target=body); t.start(); t.join()
gs = [go(f) for f in (ping, pong, sleeps, sleeps, blocks, blocks, threads, sockets)]
def small():
    ch = Chan(); go(ch.send, 1); assert ch.recv(timeout=20) == 1
    gort.sleep(0.0001)
def body():
    for i in range(200):
        code = in_child(small)
        assert code == 0, (i, code)
{place}
stop.append(1)
for g in gs[:1] + gs[2:]: g.join(timeout=20)   # 3.13.0 complains of goroutines known to threading at its end
print('ok')
""",
        GORT_MAXPROCS=processors,
    )


def test_sockets_of_the_parent_work_while_the_child_closes_all():
    run("""
pairs = [socket.socketpair() for _ in range(50)]
gs = [go(a.recv, 10) for a, b in pairs]
settle()
def body():
    os.closerange(3, 1000)
    forking.use_sockets()
for place in (lambda f: f(), lambda f: go(f).join()):
    assert place(lambda: in_child(body)) == 0
for i, (a, b) in enumerate(pairs): b.sendall(b"%d" % i)
assert [g.join(timeout=40) for g in gs] == [b"%d" % i for i in range(50)]
gs = [go(a.recv, 10) for a, b in pairs]
settle()
assert go(in_child, forking.use_sockets).join() == 0
for a, b in pairs: b.close()
assert [g.join(timeout=40) for g in gs] == [b""] * 50
print('ok')
""")


def test_descriptors_of_the_parent_s_poller_are_closed_in_the_child():
    run("""
a, b = socket.socketpair()
g = go(a.recv, 1)
settle()
def kinds():
    names = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{n}")]
    return sum("eventpoll" in n for n in names), sum("eventfd" in n for n in names)
assert kinds() == (1, 1)
def body(): assert kinds() == (0, 0)
assert in_child(body) == 0
print('ok')
""")


def test_blocking_call_of_main_is_elsewhere_when_a_goroutine_forks():
    # Main is in C code that holds no GIL; the goroutine that forks runs on another thread.
    run("""
codes = []
def body():
    for _ in range(5): codes.append(in_child(use_everything))
g = go(body)
import hashlib
data = b"x" * (1 << 20)
while not g.done:
    hashlib.sha256(data)
    os.system("true")
assert codes == [0] * 5
print('ok')
""")


def test_main_away_from_its_thread_forks():
    run("""
def hold(): os.system("sleep 1")   # nothing parks in system(): it takes the main thread
def main():
    ident = threading.get_ident()
    gs = [go(hold) for _ in range(3)]
    for _ in range(50):
        gort.sleep(0.01)
        if in_child(use_everything if _ == 20 else list) != 0: raise SystemExit("failed")
        if _ % 10 == 0:
            pid = os.fork()
            if pid == 0: sys.exit(7)
            assert code_of(pid) == 7
    assert threading.get_ident() == ident
main()
print('ok')
""")


def test_identity_of_the_forking_goroutine_stays():
    run("""
def body():
    before, lock = threading.get_ident(), threading.RLock()
    lock.acquire()
    def inside():
        assert threading.get_ident() == before == threading.main_thread().ident
        assert threading.current_thread() is threading.main_thread()
        lock.release()
        forking.use_identity()
    return in_child(inside)
assert go(body).join() == 0
assert body() == 0
print('ok')
""")


@pytest.mark.parametrize(
    "env", [{"PYTHONMALLOC": "debug"}, {"PYTHONDEVMODE": "1"}, {"MALLOC_PERTURB_": "165"}]
)
def test_fork_under_debugging_allocators(env):
    run(
        OTHERS["all of these"].replace("pairs", "gort.pairs") + "\nsettle()\n"
        "assert in_child(use_everything) == 0\nassert go(in_child, use_everything).join(timeout=50) == 0\n"
        "print('ok', flush=True)\nos._exit(0)",
        **env,
    )
