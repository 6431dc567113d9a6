"""Select: whichever is ready first, a time-out, a default, and the nil channel."""

import gort


def answer(after: float, out: gort.Chan[str], text: str) -> None:
    gort.sleep(after)
    out.send(text)


def main() -> None:
    fast, slow = gort.Chan[str](), gort.Chan[str]()
    gort.go(answer, 0.01, fast, "fast")
    gort.go(answer, 60, slow, "slow")

    index, value, _ = gort.select(gort.recv(fast), gort.recv(slow))
    print("case", index, "gave", value)

    index, _, _ = gort.select(gort.recv(slow), timeout=0.02)
    print("gave up" if index == -2 else "answered")

    index, _, _ = gort.select(gort.recv(slow), default=True)
    print("nothing yet" if index == -1 else "answered")

    # A channel set to None is never ready: that takes a case out of a loop.
    open_channels = [fast, None]
    fast.close()
    while any(open_channels):
        index, _, ok = gort.select(*map(gort.recv, open_channels))
        if not ok:
            open_channels[index] = None
    print("all closed")

    try:
        slow.recv(timeout=0.01)
    except TimeoutError:
        print("recv has a timeout of its own")


if __name__ == "__main__":
    gort.run(main)
