"""Many descriptors that are always ready: everybody gets a turn."""

from __future__ import annotations

from children import check

# Each of CONNECTIONS goroutines answers bytes; another process keeps every one of them busy and counts its answers.
PROGRAM = """
import contextlib, os, select, socket
import gort

CONNECTIONS, ROUNDS = 1000, 12
ends = [socket.socketpair() for _ in range(CONNECTIONS)]

def load():
    counts = dict.fromkeys((client.fileno() for client, _ in ends), 0)
    poller = select.epoll()
    for fd in counts:
        poller.register(fd, select.EPOLLIN)
        os.write(fd, b"x")
    left = CONNECTIONS * ROUNDS
    while left > 0:
        for fd, _ in poller.poll():
            os.read(fd, 1)
            os.write(fd, b"x")
            counts[fd] += 1
            left -= 1
    fewest, most = min(counts.values()), max(counts.values())
    print(fewest, most)
    os._exit(0 if fewest > ROUNDS / 3 else 1)

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
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


def test_each_of_a_thousand_busy_connections_is_served():
    check(PROGRAM)
