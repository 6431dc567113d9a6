"""Threads as goroutines: threading and what is built on it, in child programs with GORT_THREADS=1."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from children import child

FIRST = """
import os, sys, threading, time, _thread
import gort

def tasks():
    return len(os.listdir("/proc/self/task"))

def goroutines():
    return sum(1 for t in threading.enumerate() if t.ident != threading.main_thread().ident)
"""


def threads(code: str, *, expect: str | None = None, status: int = 0, err: str = "", **options):
    """Run `code` with threads as goroutines; its stdout, stderr must hold `err`."""
    options.setdefault("GORT_THREADS", "1")
    done = child(FIRST + textwrap.dedent(code), **options)
    assert done.returncode == status, (
        f"ended with {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    )
    if err:
        assert err in done.stderr
    else:
        assert done.stderr == ""
    if expect is not None:
        assert done.stdout.strip() == expect
    return done.stdout


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
            capture_output=True, text=True, timeout=30, check=False, env={**os.environ},
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


# pools and servers


def test_executors():
    code = """
    import asyncio, concurrent.futures as cf
    with cf.ThreadPoolExecutor(50, thread_name_prefix="pool") as pool:
        assert list(pool.map(lambda i: (time.sleep(0.001), i)[1], range(500))) == list(range(500))
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("pool_")
        f = pool.submit(lambda: 1 / 0)
        assert isinstance(f.exception(), ZeroDivisionError)
        assert tasks() < 20
    waiting = cf.ThreadPoolExecutor(1)
    hold = threading.Event()
    first, second = waiting.submit(hold.wait), waiting.submit(int)
    waiting.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    hold.set(); first.result()
    async def main():
        loop = asyncio.get_running_loop()
        a = await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(20)))
        return len(a), await loop.run_in_executor(None, threading.current_thread) is not threading.main_thread()
    assert asyncio.run(main()) == (20, True)
    left = cf.ThreadPoolExecutor(2)
    for i in range(10): left.submit(lambda: (time.sleep(0.005), print("queued", flush=True)))
    """
    assert threads(code).split() == ["queued"] * 10


def test_queue_workers():
    code = """
    import queue
    q, out = queue.Queue(10), queue.SimpleQueue()
    def work():
        while (item := q.get()) is not None:
            out.put(item * 2); q.task_done()
        q.task_done()
    ts = [threading.Thread(target=work) for _ in range(30)]
    for t in ts: t.start()
    for i in range(1000): q.put(i)
    for _ in ts: q.put(None)
    q.join()
    for t in ts: t.join()
    print(sum(out.get() for _ in range(1000)))
    """
    threads(code, expect=str(sum(range(1000)) * 2))


def test_a_threading_server():
    code = """
    import http.server, socket, socketserver, urllib.request
    class Echo(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile: self.wfile.write(line)
    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads = False
        request_queue_size = 200
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        clients = [socket.create_connection(server.server_address) for _ in range(100)]
        for i, c in enumerate(clients): c.sendall(b"%d\\n" % i)
        assert [int(c.makefile().readline()) for c in clients] == list(range(100))
        assert tasks() < 20
        for c in clients: c.close()
        server.shutdown()
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        got = []
        ts = [threading.Thread(target=lambda: got.append(
                 urllib.request.urlopen("http://127.0.0.1:%d" % server.server_port).read()))
              for _ in range(50)]
        for t in ts: t.start()
        for t in ts: t.join()
        assert got == [b"hello"] * 50
        server.shutdown()
    print("ok")
    """
    threads(code, expect="ok")


def test_the_watchdog_of_faulthandler_is_a_real_thread():
    code = """
    import faulthandler
    faulthandler.dump_traceback_later(0.05, exit=True)
    t = threading.Thread(target=lambda: [None for _ in iter(int, 1)]); t.start(); t.join()
    """
    threads(code, status=1, err="Timeout (0:00:00.05")


def test_ten_thousand_threads():
    code = """
    hold = threading.Event()
    ts = [threading.Thread(target=hold.wait, daemon=True) for _ in range(10_000)]
    for t in ts: t.start()
    assert tasks() < 20, tasks()
    hold.set()
    for t in ts: t.join()
    print(threading.active_count())
    """
    threads(code, expect="1", limit=60)


# stacks and memory


def test_stacks_are_a_threads():
    code = """
    import ctypes
    def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
    def recurse():
        try: deep(10**9)
        except RecursionError: out.append("limit")
        out.append(deep(500))
    out = []
    t = threading.Thread(target=recurse); t.start(); t.join()
    assert out == ["limit", 500], out
    import re, json
    def nested():
        a = []
        for _ in range(100_000): a = [a]
        try: repr(a)
        except RecursionError: out.append("repr")
    t = threading.Thread(target=nested); t.start(); t.join()
    assert out[-1] == "repr"
    assert threading.stack_size() == 0
    threading.stack_size(1 << 20)
    assert threading.stack_size() == 1 << 20
    t = threading.Thread(target=out.append, args=("small",)); t.start(); t.join()
    assert out[-1] == "small"
    print("ok")
    """
    threads(code, expect="ok")


def test_a_c_frame_of_a_mebibyte():
    code = """
    import ctypes
    libc = ctypes.CDLL(None)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    # glibc's glob and wordexp put what they read on the stack; a callback chain through qsort is sure
    def work():
        depth = [0]
        def cmp(a, b):
            depth[0] += 1
            if depth[0] < 300:
                array = (ctypes.c_int * 200)()
                libc.qsort(array, 2, 400, callback)
            return 0
        callback = compare(cmp)
        array = (ctypes.c_int * 200)()
        libc.qsort(array, 2, 400, callback)
        out.append(depth[0])
    out = []
    sys.setrecursionlimit(10_000)
    t = threading.Thread(target=work); t.start(); t.join()
    print(out)
    """
    threads(code, expect="[300]")


def test_a_start_that_memory_refuses():
    code = """
    import resource
    hold = threading.Event()
    ts = []
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
    try:
        for _ in range(1000):
            t = threading.Thread(target=hold.wait); t.start(); ts.append(t)
    except RuntimeError as e:
        print(e, len(ts) > 5)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    hold.set()
    for t in ts: t.join()
    t = threading.Thread(target=print, args=("others go on",)); t.start(); t.join()
    """
    threads(code, expect="can't start new thread True\nothers go on")


# signals and what belongs to OS threads


def test_signals_clocks_masks_and_affinity():
    code = """
    import signal
    got = []
    signal.signal(signal.SIGUSR1, lambda *a: got.append(threading.current_thread()))
    hold = threading.Event()
    t = threading.Thread(target=hold.wait); t.start()
    signal.pthread_kill(t.ident, signal.SIGUSR1)
    while not got: time.sleep(0.001)
    assert got == [threading.main_thread()]
    hold.set(); t.join()
    out = []
    def work():
        out.append(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}))
        time.sleep(0.001)
        out.append(signal.pthread_sigmask(signal.SIG_SETMASK, []))
        out.append(time.clock_gettime(time.pthread_getcpuclockid(threading.get_ident())) > 0)
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        time.sleep(0.001)
        out.append(os.sched_getaffinity(0) == {min(cpus)})
        try: signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        except ValueError: out.append("refused")
    t = threading.Thread(target=work); t.start(); t.join()
    assert out == [set(), {signal.SIGUSR2}, True, True, "refused"], out
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    t = threading.Thread(target=lambda: out.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    t.start(); t.join()
    assert out[-1] == set()
    print("ok")
    """
    threads(code, expect="ok")


def test_ctrl_c_while_main_joins():
    code = """
    import signal
    hold = threading.Event()
    t = threading.Thread(target=hold.wait); t.start()
    threading.Thread(target=lambda: (time.sleep(0.02), os.kill(os.getpid(), signal.SIGINT))).start()
    try: t.join()
    except KeyboardInterrupt: print("interrupted")
    hold.set(); t.join()
    """
    threads(code, expect="interrupted")


def test_goroutines_and_threads_together():
    code = """
    ch, out = gort.Chan(), []
    def work(i):
        ch.send(i)
        gort.go(out.append, i).join()
        assert gort.current() is None and gort.goroutines() is not None
        gort.sleep(0.001)
    ts = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for t in ts: t.start()
    assert sorted(ch.recv() for _ in ts) == list(range(20))
    for t in ts: t.join()
    assert sorted(out) == list(range(20))
    g = gort.go(lambda: [t.start() or t.join() for t in [threading.Thread(target=time.sleep, args=(0.001,))]])
    g.join()
    print("ok")
    """
    threads(code, expect="ok")
