"""Threads as goroutines: threading and what is built on it, in child programs with GORT_THREADS=1."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from children import child, shared_library, threads

# switching it on


def test_values_of_the_variable_are_checked():
    done = child("import gort", GORT_THREADS="yes")
    assert done.returncode == 1
    assert "GORT_THREADS must be 1" in done.stderr
    done = child("import gort", GORT_THREADS="1", GORT_BOUNDARY="0")
    assert done.returncode == 1
    assert "GORT_THREADS=1 needs calls that park" in done.stderr


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_variable_switches_it(value):
    threads("print(gort.threads.enabled())", expect=str(value == "1"), GORT_THREADS=value)


def test_enable_needs_parking():
    code = """
    try:
        gort.threads.enable()
    except RuntimeError as e:
        print("refused", gort.threads.enabled())
    t = threading.Thread(target=print, args=("real",)); t.start(); t.join()
    """
    threads(code, expect="refused False\nreal", GORT_THREADS="0", GORT_BOUNDARY="0")


def test_run_threads(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(
        "import sys, threading, gort\n"
        "print(gort.threads.enabled(), sys.argv[1:], __name__)\n"
        "t = threading.Thread(target=lambda: print('ran')); t.start()\n"
    )
    for option, on in (((), False), (("--threads",), True)):
        done = subprocess.run(
            [sys.executable, "-m", "gort", "run", *option, str(app), "--threads", "x"],
            capture_output=True, text=True, timeout=100, check=False, env={**os.environ},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{on} ['--threads', 'x'] __main__\nran\n"


def test_enable_disable_and_real():
    code = """
    def start(n):
        hold, ready = threading.Event(), threading.Semaphore(0)
        ts = [threading.Thread(target=lambda: (ready.release(), hold.wait())) for _ in range(n)]
        for t in ts: t.start()
        for t in ts: ready.acquire()
        count = tasks()
        hold.set()
        for t in ts: t.join()
        return count
    gort.threads.enable()
    gort.threads.enable()
    assert gort.threads.enabled()
    assert start(50) < 20
    with gort.threads.real():
        assert not gort.threads.enabled()
        with gort.threads.real():
            assert start(50) > 50
        assert start(50) > 50
        g = gort.go(gort.threads.enabled)
        assert g.join()
    assert gort.threads.enabled()
    while tasks() > 10: time.sleep(0.001)  # threads that were joined may not have left yet
    assert start(50) < 20
    gort.threads.disable()
    assert not gort.threads.enabled()
    assert start(50) > 50
    print("ok")
    """
    threads(code, expect="ok", GORT_THREADS="0")


# threading.Thread


def test_thread_start_join_names_and_idents():
    code = """
    seen = {}
    def work(key, *, more):
        t = threading.current_thread()
        seen[key] = (t.name, t.ident == _thread.get_ident() == threading.get_ident(),
                     t.native_id == threading.get_native_id(), t.daemon, t.is_alive(), more,
                     t is not threading.main_thread())
    main = threading.get_ident()
    ts = [threading.Thread(target=work, name=f"worker {i}", args=(i,), kwargs={"more": i * i})
          for i in range(20)]
    for t in ts: t.start()
    for t in ts: t.join()
    assert [seen[i] for i in range(20)] == [
        (f"worker {i}", True, True, False, True, i * i, True) for i in range(20)]
    assert not any(t.is_alive() for t in ts)
    assert threading.get_ident() == main == threading.main_thread().ident
    assert threading.active_count() == 1
    hold = threading.Event()
    ts = [threading.Thread(target=hold.wait, daemon=True) for _ in range(100)]
    for t in ts: t.start()
    assert len({t.ident for t in ts} | {main}) == 101
    assert len(set(map(id, threading.enumerate()))) == 101
    ts[0].join(0.001)
    assert ts[0].is_alive()
    hold.set()
    for t in ts: t.join(20)
    assert not any(t.is_alive() for t in ts)
    try:
        threading.Thread(target=lambda: threading.current_thread().join()).run()
    except RuntimeError as e:
        print("ok", e)
    """
    assert threads(code).startswith("ok cannot join current thread")


def test_thread_module_functions():
    code = """
    done = _thread.allocate_lock(); done.acquire()
    box = []
    def work(*args, **kwargs):
        box.append((args, kwargs, _thread.get_ident()))
        done.release()
        _thread.exit()
    ident = _thread.start_new_thread(work, (1, 2), {"a": 3})
    done.acquire()
    assert box == [((1, 2), {"a": 3}, ident)], (box, ident)
    while _thread._count():
        time.sleep(0.001)
    print("ok")
    """
    threads(code, expect="ok")


def test_locals_and_their_destructors():
    code = """
    local = threading.local()
    local.x = "main"
    class Noted:
        def __del__(self): dropped.append(threading.get_ident())
    dropped = []
    def work(i):
        assert not hasattr(local, "x")
        local.x, local.noted = i, Noted()
        time.sleep(0.001)
        assert local.x == i
        idents.append(threading.get_ident())
    idents = []
    ts = [threading.Thread(target=work, args=(i,)) for i in range(50)]
    for t in ts: t.start()
    for t in ts: t.join()
    while len(dropped) < 50: time.sleep(0.001)
    assert local.x == "main" and sorted(dropped) == sorted(idents)
    print("ok")
    """
    threads(code, expect="ok")


def test_locks_and_conditions():
    code = """
    r = threading.RLock()
    with r, r:
        other = []
        t = threading.Thread(target=lambda: other.append(r.acquire(blocking=False))); t.start(); t.join()
        assert other == [False]
        t = threading.Thread(target=lambda: other.append(r.acquire(timeout=0.01))); t.start(); t.join()
        assert other == [False, False]
    def wrong():
        try: r.release()
        except RuntimeError: other.append("refused")
    t = threading.Thread(target=wrong); t.start(); t.join()
    assert other[-1] == "refused"

    c, items, got = threading.Condition(), [], []
    def consume():
        with c:
            c.wait_for(lambda: items)
            got.append(items.pop())
    ts = [threading.Thread(target=consume) for _ in range(30)]
    for t in ts: t.start()
    for i in range(30):
        with c: items.append(i); c.notify()
    for t in ts: t.join()
    assert sorted(got) == list(range(30))
    with c: assert not c.wait(0.001)

    barrier, order = threading.Barrier(10, action=lambda: order.append("all")), []
    ts = [threading.Thread(target=barrier.wait) for _ in range(10)]
    for t in ts: t.start()
    for t in ts: t.join()
    assert order == ["all"]
    broken = []
    def wait_broken():
        try: threading.Barrier(2).wait(0.001)
        except threading.BrokenBarrierError: broken.append(1)
    t = threading.Thread(target=wait_broken); t.start(); t.join()
    assert broken

    s, most, now = threading.BoundedSemaphore(3), [0], [0]
    lock = threading.Lock()
    def limited():
        with s:
            with lock: now[0] += 1; most[0] = max(most[0], now[0])
            time.sleep(0.001)
            with lock: now[0] -= 1
    ts = [threading.Thread(target=limited) for _ in range(30)]
    for t in ts: t.start()
    for t in ts: t.join()
    assert most == [3] and now == [0]

    fired = threading.Event()
    threading.Timer(0.001, fired.set).start()
    assert fired.wait(20)
    timer = threading.Timer(1000, fired.set); timer.start(); timer.cancel(); timer.join()
    print("ok")
    """
    threads(code, expect="ok")


def test_counting_under_a_lock_is_exact():
    code = """
    lock, n = threading.Lock(), 0
    def count():
        global n
        for _ in range(2000):
            with lock: n += 1
    ts = [threading.Thread(target=count) for _ in range(20)]
    for t in ts: t.start()
    for t in ts: t.join()
    print(n)
    """
    threads(code, expect="40000")


def test_exceptions_and_excepthook():
    code = """
    caught = []
    threading.excepthook = lambda args: caught.append((args.exc_type, args.thread.name))
    def fail(): raise ValueError("no")
    def leave(): sys.exit(3)
    for f in (fail, leave):
        t = threading.Thread(target=f, name=f.__name__); t.start(); t.join()
    assert caught == [(ValueError, "fail"), (SystemExit, "leave")], caught
    threading.excepthook = threading.__excepthook__
    t = threading.Thread(target=leave); t.start(); t.join()
    t = threading.Thread(target=fail, name="loud"); t.start(); t.join()
    print("ok")
    """
    threads(code, expect="ok", err="Exception in thread loud:\nTraceback")
    code = """
    begun = threading.Lock(); begun.acquire()
    def fail(): begun.release(); raise TypeError
    _thread.start_new_thread(fail, ())
    begun.acquire()
    while _thread._count(): time.sleep(0.001)
    """
    threads(code, err="TypeError")


def test_settrace_and_setprofile():
    code = """
    seen = []
    def work(): return 7
    threading.settrace(lambda frame, what, arg: seen.append(("trace", frame.f_code.co_name)))
    threading.setprofile(lambda frame, what, arg: seen.append(("profile", frame.f_code.co_name)))
    t = threading.Thread(target=work); t.start(); t.join()
    threading.settrace(None); threading.setprofile(None)
    assert ("trace", "work") in seen and ("profile", "work") in seen
    seen.clear()
    t = threading.Thread(target=work); t.start(); t.join()
    assert not seen
    print("ok")
    """
    threads(code, expect="ok")


def test_async_exceptions_and_frames():
    code = """
    import ctypes, faulthandler, traceback
    state = []
    def spin():
        try:
            state.append(threading.get_ident())
            while True: time.sleep(0.001)
        except KeyError:
            state.append("interrupted")
    t = threading.Thread(target=spin); t.start()
    while not state: time.sleep(0.001)
    frames = sys._current_frames()
    names = [f.name for f in traceback.extract_stack(frames[t.ident])]
    assert "spin" in names, names
    assert threading.main_thread().ident in frames
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(t.ident), ctypes.py_object(KeyError)) == 1
    t.join(20)
    assert state[1:] == ["interrupted"] and not t.is_alive()
    hold = threading.Event()
    def waits_here(): hold.wait()
    ts = [threading.Thread(target=waits_here) for _ in range(3)]
    for t in ts: t.start()
    with open(os.devnull + "", "w"), open("/tmp/gort-dump-%d" % os.getpid(), "w+") as file:
        os.unlink(file.name)
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read()
    hold.set()
    for t in ts: t.join()
    assert text.count("in waits_here") == 3, text
    print("ok")
    """
    threads(code, expect="ok")


# the end of the program


def test_shutdown_waits_for_threads_that_are_no_daemons():
    code = """
    import atexit
    atexit.register(print, "exit")
    def late():
        time.sleep(0.05); print("late", flush=True)
        try: threading.Thread(target=later).start()
        except RuntimeError as e: assert sys.version_info[:2] == (3, 12), e  # what 3.12 says
    def later(): time.sleep(0.01); print("later", flush=True)
    threading.Thread(target=late).start()
    """
    later = "" if sys.version_info[:2] == (3, 12) else "later\n"
    threads(code, expect=f"late\n{later}exit")


DAEMONS = {
    "parked": "hold.wait",
    "sleeping": "lambda: time.sleep(1000)",
    "computing": "lambda: [None for _ in iter(int, 1)]",
    "blocking": "lambda: ctypes.CDLL(None).usleep(300_000)",
    "reading": "lambda: os.read(os.pipe()[0], 1)",
    "printing": "lambda: [print('', end='') for _ in iter(int, 1)]",
}


@pytest.mark.parametrize("what", DAEMONS)
def test_daemons_left_at_exit(what):
    code = f"""
    import ctypes
    hold = threading.Event()
    begun = threading.Semaphore(0)
    def work(): begun.release(); ({DAEMONS[what]})()
    for _ in range(5): threading.Thread(target=work, daemon=True).start()
    for _ in range(5): begun.acquire()
    print("end")
    """
    threads(code, expect="end")


def test_exit_codes_of_main():
    code = """
    threading.Thread(target=time.sleep, args=(0.01,)).start()
    sys.exit(5)
    """
    threads(code, status=5)


def test_pthread_exit_ends_the_goroutine():
    code = """
    import ctypes
    libc = ctypes.PyDLL(None)
    def leave(): hold.wait(); ctypes.CDLL(None).pthread_exit(None)
    def leave_attached(): libc.PyEval_SaveThread(); ctypes.CDLL(None).pthread_exit(None)
    hold = threading.Event()
    for _ in range(20): _thread.start_new_thread(leave, ())
    hold.set()
    box = []
    t = threading.Thread(target=box.append, args=(1,)); t.start(); t.join()
    print(box, flush=True)
    os._exit(0)
    """
    threads(code, expect="[1]")


def test_frames_of_a_thread_that_left_for_good_stay():
    """As an OS thread's do: its state is in CPython's list, and others have other memory."""
    code = """
    import ctypes
    def leave(): hold.wait(); ctypes.CDLL(None).PyThread_exit_thread()
    def innermost(): return {f.f_code.co_name for f in sys._current_frames().values()} - {"innermost"}
    hold, again = threading.Event(), threading.Event()
    for _ in range(20): _thread.start_new_thread(leave, ())
    hold.set()
    while innermost() != {"leave"}: time.sleep(0.001)
    later = [threading.Thread(target=again.wait) for _ in range(100)]
    for t in later: t.start()
    assert tasks() < 10
    again.set()
    for t in later: t.join()
    print(innermost(), flush=True)
    os._exit(0)
    """
    threads(code, expect="{'leave'}")


LOOKS = """
#include <pthread.h>
#include <stdint.h>
void *_PyInterpreterState_LookUpID(int64_t);
static volatile int over;
static void *looks(void *unused) {
    while (!over)
        _PyInterpreterState_LookUpID(0);
    return unused;
}
static pthread_t all[4];
void begin(void) {
    for (int i = 0; i < 4; i++)
        pthread_create(&all[i], 0, looks, 0);
}
void end(void) {
    over = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], 0);
}
"""


def test_threads_end_while_others_have_the_lock_of_all_states(tmp_path):
    """As OS threads that the runtime starts do. From 3.13 on a thread waits for it with the GIL, but without being current."""
    library = shared_library(tmp_path / "liblooks.so", LOOKS)
    code = f"""
import ctypes
others = ctypes.CDLL({library!r})
others.begin()
for _ in range(1000):
    many = [threading.Thread(target=int) for _ in range(10)]
    for thread in many: thread.start()
    for thread in many: thread.join()
others.end()
print("ok")
"""
    threads(code, expect="ok")
