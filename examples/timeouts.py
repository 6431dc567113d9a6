"""Every call that waits takes a time-out, or a context that gives one to a whole piece of work."""

import socket
import time

import gort
from gort.context import background, with_timeout


def tried(what: str, call: object, *args: object, **options: object) -> None:
    try:
        call(*args, **options)  # type: ignore[operator]
    except TimeoutError as end:
        print(f"{what}: {end}")


def main() -> None:
    ch, lock, gate = gort.Chan[int](), gort.Mutex(), gort.WaitGroup()
    gate.add(1)
    lock.lock()
    tried("receive", ch.recv, timeout=0.001)
    tried("send", ch.send, 1, timeout=0.001)
    tried("lock", lock.lock, timeout=0.001)
    tried("group", gate.wait, timeout=0.001)
    print("select:", gort.select(gort.recv(ch), timeout=0.001))

    begun = time.monotonic()
    with with_timeout(background(), 0.02) as ctx:  # one deadline for all that follows
        tried("receive in a context", ch.recv, ctx=ctx)
        tried("lock, which does not begin", lock.lock, ctx=ctx)
    print("both together in time:", time.monotonic() - begun < 10)

    ours, theirs = socket.socketpair()  # plain code has time-outs of its own
    ours.settimeout(0.001)
    tried("socket", ours.recv, 1)
    theirs.close()


if __name__ == "__main__":
    gort.run(main)
