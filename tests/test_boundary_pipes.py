"""Pipes, vectors and files in goroutines; stdio objects over them; who shares a descriptor."""

from __future__ import annotations

import os
import socket
import threading

import gort
import pytest
from children import check
from waiting import LIMIT, hold, in_goroutine, join_all, waiter

IS_AGAIN = pytest.raises(BlockingIOError)
BOTH = pytest.mark.parametrize("boundary", ["1", "0"])


def test_pipes_carry_more_than_they_hold():
    r, w = os.pipe()
    data = os.urandom(1_000_000)

    def feed():
        with open(w, "wb", 0) as file:
            assert file.write(data) == len(data)

    writer = gort.go(feed)
    with open(r, "rb") as file:
        assert in_goroutine(file.read) == data
    writer.join(timeout=LIMIT)


def test_write_of_a_broken_pipe(anywhere):
    def body():
        r, w = os.pipe()
        os.close(r)
        with pytest.raises(BrokenPipeError):
            os.write(w, b"x")
        os.close(w)

    anywhere(body)


def test_reader_goes_while_the_writer_is_parked():
    r, w = os.pipe()
    writer = waiter(os.write, w, b"x" * 1_000_000)
    os.close(r)
    assert 0 < writer.join(timeout=LIMIT) < 1_000_000  # a part was in the pipe: that is told first
    with pytest.raises(BrokenPipeError):
        in_goroutine(os.write, w, b"x")
    os.close(w)


def test_non_blocking_pipe_takes_a_part(anywhere):
    def body():
        r, w = os.pipe()
        os.set_blocking(w, False)
        os.set_blocking(r, False)
        with IS_AGAIN:
            os.read(r, 1)
        n = os.write(w, b"x" * 1_000_000)
        with IS_AGAIN:
            os.write(w, b"x" * 5000)
        os.close(r)
        os.close(w)
        return n

    assert 0 < anywhere(body) < 1_000_000


def test_vectors_and_files(tmp_path):
    def body():
        r, w = os.pipe()
        writer = gort.go(os.writev, w, [b"ab", b"", b"cd"])
        buffers = [bytearray(1), bytearray(10)]
        assert os.readv(r, buffers) in (1, 4)
        writer.join(timeout=LIMIT)
        os.close(r)
        os.close(w)
        path = tmp_path / "file"
        path.write_bytes(b"text" * 1000)
        return len(path.read_bytes())

    assert in_goroutine(body) == 4000


def test_a_thread_and_goroutines_share_a_socket():
    a, b = socket.socketpair()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(b.recv(1)), daemon=True)
    thread.start()
    readers = [waiter(b.recv, 1) for _ in range(5)]
    for _ in range(6):
        a.send(b"x")
        hold(0.0005)
    assert join_all(readers) == [b"x"] * 5
    thread.join(LIMIT)
    assert seen == [b"x"]
    a.close()
    b.close()


@BOTH
def test_lines_written_by_goroutines_stay_whole(boundary):
    code = """
    import gort, sys
    def body(i):
        for k in range(20):
            sys.stdout.write(f"more {i} {k}\\n")
    for g in [gort.go(body, i) for i in range(50)]: g.join()
    """
    lines = check(code, GORT_BOUNDARY=boundary).splitlines()
    assert sorted(lines) == sorted(f"more {i} {k}" for i in range(50) for k in range(20))


@BOTH
def test_standard_input_is_read_by_goroutines(boundary):
    code = """
    import gort, os, sys
    r, w = os.pipe()
    os.dup2(r, 0)
    def feed():
        for i in range(100):
            os.write(w, b"%d\\n" % i)
            gort.gosched()
        os.close(w)
    gort.go(feed)
    seen = []
    def take():
        while line := sys.stdin.readline():
            seen.append(int(line))
            gort.gosched()
    for g in [gort.go(take) for _ in range(1)]: g.join()
    print(sum(seen), len(seen), "end")
    """
    check(code, "4950 100 end", GORT_BOUNDARY=boundary)


@BOTH
def test_input_in_a_goroutine(boundary):
    code = """
    import gort, os
    r, w = os.pipe()
    os.dup2(r, 0)
    g = gort.go(input)
    for _ in range(20): gort.gosched()
    os.write(w, b"typed\\n")
    print(g.join())
    """
    check(code, "typed", GORT_BOUNDARY=boundary)


@BOTH
def test_flush_at_exit_of_what_a_goroutine_wrote(boundary):
    code = """
    import gort
    gort.go(lambda: print("written", end="")).join()
    """
    check(code, "written", GORT_BOUNDARY=boundary)
