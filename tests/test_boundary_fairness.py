"""Many descriptors that are always ready: everybody gets a turn."""

from __future__ import annotations

from children import check

# Each of CONNECTIONS goroutines answers bytes; another process keeps all of them busy and counts their answers. It sends to
# BATCH of them at a time: a single one that is answered at once would not wait, and keep the P for its time slice.
PROGRAM = """
import contextlib, os, select, socket
import gort

CONNECTIONS, BATCH, ROUNDS = 1000, 100, 12
ends = [socket.socketpair() for _ in range(CONNECTIONS)]
told, tell = os.pipe()

def load():
    os.read(told, 1)
    counts = dict.fromkeys((client.fileno() for client, _ in ends), 0)
    poller = select.epoll()
    for fd in counts:
        poller.register(fd, select.EPOLLIN | select.EPOLLET)
        os.write(fd, b"x")
    answered = []
    while sum(counts.values()) < CONNECTIONS * ROUNDS:
        answered += [fd for fd, _ in poller.poll()]
        if len(answered) < BATCH:
            continue
        for fd in answered:
            os.read(fd, 1)
            os.write(fd, b"x")
            counts[fd] += 1
        answered = []
    fewest, most = min(counts.values()), max(counts.values())
    print(fewest, most)
    os._exit(0 if fewest > ROUNDS / 2 else 1)

child = os.fork()
if child == 0:
    load()

def serve(end):
    with contextlib.suppress(OSError):  # the load ends as it likes
        while part := end.recv(1):
            sum(range(300))
            end.sendall(part)

for client, end in ends:
    client.close()
    gort.go(serve, end)
os.write(tell, b"x")
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


def test_each_of_a_thousand_busy_connections_is_served():
    check(PROGRAM)
