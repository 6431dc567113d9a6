"""Threads as goroutines: pools, servers, stacks and signals, in child programs with GORT_THREADS=1."""

from __future__ import annotations

from children import threads

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
