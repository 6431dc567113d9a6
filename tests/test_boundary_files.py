"""Pipes, terminals, and calls that look at many descriptors at once."""

from __future__ import annotations

import os
import pty
import select
import socket
import tty

import gort
import pytest
from children import check
from waiting import LIMIT, join_all, parked, waiter


@pytest.fixture
def pipe():
    """The two ends of a pipe."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def terminal():
    """The two ends of a terminal that passes bytes on as they are."""
    ends = pty.openpty()
    tty.setraw(ends[1])
    yield ends
    for fd in ends:
        os.close(fd)


def read_all(fd, size):
    parts = []
    while size:
        parts.append(os.read(fd, size))
        size -= len(parts[-1])
    return b"".join(parts)


def test_writev_larger_than_the_pipe_is_whole(pipe):
    parts = [b"", os.urandom(100_000), b"", os.urandom(200_000), os.urandom(3)]
    g = waiter(os.writev, pipe[1], parts)
    data = b"".join(parts)
    assert gort.go(read_all, pipe[0], len(data)).join(timeout=LIMIT) == data
    assert g.join(timeout=LIMIT) == len(data)


def test_writers_of_small_parts_do_not_mix_them(pipe):
    size = select.PIPE_BUF - 1

    def write(byte):
        for _ in range(20):
            assert os.write(pipe[1], bytes([byte]) * size) == size

    gs = [waiter(write, byte) for byte in range(1, 6)]
    reads = [gort.go(read_all, pipe[0], size).join(timeout=LIMIT) for _ in range(100)]
    assert all(set(part) == {part[0]} for part in reads)
    join_all(gs)


def test_wrong_call_is_told_at_once(pipe):
    with pytest.raises(OSError, match="Invalid argument"):
        gort.go(os.readv, pipe[0], [bytearray(1)] * 2000).join(timeout=LIMIT)
    with pytest.raises(OSError, match="Invalid argument"):
        gort.go(os.writev, pipe[1], [b"x"] * 2000).join(timeout=LIMIT)


def test_terminal_is_read_and_written_by_goroutines(terminal):
    master, slave = terminal
    for reader, writer in ((master, slave), (slave, master)):
        g = waiter(os.read, reader, 10)
        assert os.write(writer, b"abc") == 3
        assert g.join(timeout=LIMIT) == b"abc"


def test_write_larger_than_a_terminal_takes_is_whole(terminal):
    master, slave = terminal
    data = os.urandom(1 << 17)
    g = gort.go(os.write, slave, data)
    assert gort.go(read_all, master, len(data)).join(timeout=LIMIT) == data
    assert g.join(timeout=LIMIT) == len(data)


def test_terminal_that_ends_ends_its_reader():
    master, slave = pty.openpty()
    g = waiter(os.read, master, 1)
    os.close(slave)
    with pytest.raises(OSError, match="Input/output error"):
        g.join(timeout=LIMIT)
    os.close(master)


def poll(*wanted, timeout=None):
    """What a poll of these (descriptor, events) finds."""
    poller = select.poll()
    for fd, events in wanted:
        poller.register(fd, events)
    return poller.poll(timeout)


def test_poll_without_events_hears_of_the_end_only():
    a, b = socket.socketpair()
    g = waiter(poll, (a.fileno(), 0))
    b.send(b"x")
    parked(g)
    b.close()
    assert g.join(timeout=LIMIT) == [(a.fileno(), select.POLLHUP)]
    a.close()


def test_poll_of_nothing_is_a_sleep():
    assert gort.go(poll, timeout=1).join(timeout=LIMIT) == []
    assert gort.go(select.select, [], [], [], 0.001).join(timeout=LIMIT) == ([], [], [])


def test_poll_of_a_descriptor_that_is_none():
    r, w = os.pipe()
    os.close(r), os.close(w)
    assert gort.go(poll, (r, select.POLLIN)).join(timeout=LIMIT) == [(r, select.POLLNVAL)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        gort.go(select.select, [r], [], []).join(timeout=LIMIT)


def test_poll_of_a_file_that_is_always_ready_beside_a_pipe(pipe, tmp_path):
    with open(tmp_path / "file", "wb+") as file:
        found = gort.go(poll, (pipe[0], select.POLLIN), (file.fileno(), select.POLLIN))
        assert found.join(timeout=LIMIT) == [(file.fileno(), select.POLLIN)]


@pytest.mark.parametrize("count", [1, 8, 9, 60])
def test_select_of_many_finds_those_that_are_ready(count):
    pairs = [socket.socketpair() for _ in range(count)]
    readers = [a for a, _ in pairs]
    g = waiter(select.select, readers, [], readers)
    for a, b in (pairs[0], pairs[-1]):
        b.send(b"x")
    ready, _, ends = g.join(timeout=LIMIT)
    assert set(ready) <= {readers[0], readers[-1]} and ready and not ends
    assert gort.go(select.select, readers, readers, [], 0).join(timeout=LIMIT)[1] == readers
    for a, b in pairs:
        a.close(), b.close()


def test_select_hears_of_urgent_data():
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
        g = waiter(select.select, [], [], [a])
        b.send(b"!", socket.MSG_OOB)
        assert g.join(timeout=LIMIT) == ([], [], [a])
        assert gort.go(a.recv, 1, socket.MSG_OOB).join(timeout=LIMIT) == b"!"
        a.close(), b.close()


def test_epoll_of_many_by_many(pipe):
    with select.epoll() as epoll:
        epoll.register(pipe[0], select.EPOLLIN)
        gs = [waiter(epoll.poll) for _ in range(5)]
        os.write(pipe[1], b"x")
        assert join_all(gs) == [[(pipe[0], select.EPOLLIN)]] * 5


def test_time_of_a_poll_is_kept_though_events_come_that_are_not_asked_for():
    a, b = socket.socketpair()
    with a, b:
        g = gort.go(poll, (a.fileno(), select.POLLPRI), timeout=30)
        b.send(b"x")
        assert g.join(timeout=LIMIT) == []


def test_select_that_a_signal_interrupts_asks_again_for_the_same():
    check(
        """
        import os, select, signal
        import gort, gort.boundary
        from waiting import eventually

        got, (r, w) = [], os.pipe()
        signal.signal(signal.SIGUSR1, lambda *_: got.append(1))

        def waits(count):
            call = gort.boundary.status().calls.get("select")
            return call and call.parked == count

        def disturb():
            eventually(lambda: waits(1))
            os.kill(os.getpid(), signal.SIGUSR1)
            eventually(lambda: got and waits(2))
            os.write(w, b"x")

        gort.go(disturb)
        assert select.select([r], [], [], 20) == ([r], [], [])
        """
    )
