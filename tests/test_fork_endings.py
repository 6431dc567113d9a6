"""How children end that goroutines forked, what else forks, and what the child hears of signals and deadlocks."""

from __future__ import annotations

import sys

import pytest
from children import child
from forking import HEADER, run


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_codes_of_children_are_seen(code):
    run(f"""
def body():
    pid = os.fork()
    if pid == 0:
        go(gort.sleep, 60); gort.sleep(0.001)
        os._exit({code})
    return code_of(pid)
assert [g.join() for g in [go(body) for _ in range(5)]] == [{code}] * 5
assert body() == {code}
print('ok')
""")


def test_main_in_the_child_ends_as_a_program_does():
    done = child(
        HEADER
        + """
import atexit
gs = [go(Chan().recv) for _ in range(50)]
settle()
pid = os.fork()
if pid == 0:
    atexit.register(print, "exit handler")
    go(Chan().recv); settle()
    print("child")
    sys.exit(4)
assert code_of(pid) == 4
print("parent")
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "child\nexit handler\nparent\n"


# The function of a goroutine, or of a thread, returns in the child: `start(f)` starts it and waits for its end.
ENDINGS = {
    "returns": "os.fork()",
    "returns later": "os.fork() or time.sleep(0.05)",
    "prints": "os.fork() or print('unflushed')",
    "prints and flushes": "os.fork() or print('flushed', flush=True)",
    "raises": "os.fork() or 1 / 0",
    "exits": "os.fork() or sys.exit(3)",
    "leaves a thread": """os.fork() or threading.Thread(
        target=lambda: (time.sleep(0.1), print('thread', flush=True))).start()""",
    "leaves a daemon thread": """os.fork() or threading.Thread(daemon=True,
        target=lambda: (time.sleep(0.1), print('thread', flush=True))).start()""",
    "registers a handler": "os.fork() or __import__('atexit').register(print, 'handler', flush=True)",
}
ENDING = """
def body():
    pid = {what}
    if pid and pid is not True:
        print(code_of(pid), flush=True)
"""


@pytest.mark.parametrize("what", ENDINGS)
def test_end_of_the_goroutine_in_the_child_is_like_the_end_of_a_thread(what):
    body = HEADER + ENDING.format(what=ENDINGS[what])
    plain = child(body + "t = threading.Thread(target=body); t.start(); t.join()")
    ours = child(body + "go(Chan().recv); g = go(body); g.join()")
    assert plain.returncode == ours.returncode == 0
    assert ours.stdout == plain.stdout
    # The traceback's end, before the note that says where a goroutine was spawned.
    last = lambda text: text.split("\ngoroutine ")[0].strip().split("\n")[-1]  # noqa: E731
    assert last(ours.stderr) == last(plain.stderr)


def test_goroutines_started_in_the_child_end_with_it():
    run("""
def body():
    pid = os.fork()
    if pid == 0:
        for _ in range(20): go(Chan().recv)
        go(time.sleep, 60)
        gort.sleep(0.01)
        return
    return code_of(pid)
go(Chan().recv)
assert go(body).join(timeout=50) == 0
print('ok')
""")


@pytest.mark.parametrize(
    "also", ["", "go(Chan().recv); gort.sleep(0.01)", "helper()", "in_child(use_everything)"]
)
def test_end_of_the_thread_that_forked_ends_the_child(also):
    run(
        f"""
def helper():   # the only one that uses gort
    t = threading.Thread(target=lambda: go(gort.sleep, 0.01).join()); t.start(); t.join()
def body():
    pid = os.fork()
    if pid == 0:
        {also or "pass"}
        threading.Thread(target=lambda: (gort.sleep(0.05), print("last", flush=True))).start()
        return
    codes.append(code_of(pid))
go(Chan().recv)
codes = []
t = threading.Thread(target=body); t.start(); t.join()
assert codes == [0], codes
""",
        "last",
    )


def test_multiprocessing_from_goroutines():
    run("""
context = multiprocessing.get_context("fork")
def work(q, n):
    use_everything()
    q.put(n * n)
def body(n):
    q = context.Queue()
    p = context.Process(target=work, args=(q, n))
    p.start()
    value = q.get(timeout=50)
    p.join()
    return value, p.exitcode
gs = [go(body, n) for n in range(4)]
assert [g.join(timeout=28) for g in gs] == [(n * n, 0) for n in range(4)]
print('ok')
""")


@pytest.mark.parametrize(
    "preexec", ["None", "lambda: os.setpgid(0, 0)", "lambda: go(pow, 2, 5).join()"]
)
def test_subprocesses_from_fifty_goroutines(preexec):
    run(f"""
import warnings; warnings.simplefilter("ignore")
def body(n):
    done = subprocess.run(["echo", str(n)], capture_output=True, text=True, preexec_fn={preexec})
    return done.stdout
gs = [go(body, n) for n in range(50)]
assert [g.join() for g in gs] == [f"{{n}}\\n" for n in range(50)]
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
assert mask == go(signal.pthread_sigmask, signal.SIG_BLOCK, []).join() == set()
try: subprocess.run(["/no/such/program"])
except FileNotFoundError: pass
print('ok')
""")


@pytest.mark.parametrize(
    "wait", ["Chan().recv()", "gort.Mutex().lock() or m.lock()", "gort.select()"]
)
def test_deadlock_in_the_child_is_an_error(wait):
    run(f"""
m = gort.Mutex(); m.lock()
gs = [go(Chan().recv) for _ in range(5)]
settle()
def body():
    try: {wait}
    except gort.DeadlockError as e:
        assert sum(line.startswith("goroutine ") for line in e.dump.splitlines()) == 1, e.dump
        return 0
    return 1
def exits():
    pid = os.fork()
    if pid == 0: os._exit(body())
    return code_of(pid)
assert exits() == 0
assert go(exits).join() == 0
print('ok')
""")


def test_signal_wakes_the_child_s_main_goroutine():
    run("""
def body():
    def child():
        class Woken(Exception): pass
        def handler(*_): raise Woken
        signal.signal(signal.SIGUSR1, handler)
        for wait in (Chan().recv, lambda: gort.sleep(60), lambda: time.sleep(60), lambda: [0 for _ in iter(int, 1)]):
            sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            sender.start()
            try: wait()
            except Woken: pass
            sender.join()
    return in_child(child)
assert go(body).join(timeout=50) == 0
assert body() == 0
print('ok')
""")


def test_destructors_that_run_during_the_fork_may_use_gort():
    # CPython deletes the other thread states in the child, and what only those knew with them.
    run("""
ch = Chan(1000)
class Last:
    def __del__(self):
        ch.try_send(os.getpid()); go(ch.try_send, os.getpid())
local = threading.local()
def keeps():
    local.value = Last()
    Chan().recv()
gs = [go(keeps) for _ in range(50)]
settle()
def body():
    settle()
    seen = {ch.recv() for _ in range(len(ch))}
    assert seen == {os.getpid()}, seen
    use_everything(alone=False)
assert in_child(body) == 0
assert go(in_child, body).join(timeout=50) == 0
print('ok')
""")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="CPython warns from 3.12 on")
def test_cpython_s_warning_of_threads_stays():
    done = child(
        "import gort, os\nfor _ in range(3): gort.go(gort.sleep, 0.01).join()\n"
        "pid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)"
    )
    assert "DeprecationWarning" in done.stderr
    assert "multi-threaded" in done.stderr


def test_fork_by_threads_that_are_goroutines():
    run("""
gort.threads.enable()
def body(codes):
    ident = threading.get_ident()
    def inside():
        assert threading.get_ident() == ident and threading.current_thread() is threading.main_thread()
        use_everything(alone=False)
    codes.append(in_child(inside))
    pid = os.fork()
    if pid == 0: return
    codes.append(code_of(pid))
gs = [go(Chan().recv) for _ in range(20)]
others = [threading.Thread(target=time.sleep, args=(60,), daemon=True) for _ in range(10)]
for t in others: t.start()
codes = []
for _ in range(3):
    t = threading.Thread(target=body, args=(codes,)); t.start(); t.join(20)
assert codes == [0, 0] * 3, codes
print('ok')
""")
