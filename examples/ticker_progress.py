"""A ticker shows how far the work is, beside the goroutine that does it."""

import sys

import gort


def work(steps: int, state: dict[str, int]) -> int:
    total = 0
    for n in range(steps):
        total += n
        state["done"] = n + 1
        gort.sleep(0.001)  # stands for a call that waits
    return total


def show(steps: int, state: dict[str, int], stop: gort.Chan[None]) -> int:
    ticker = gort.Ticker(0.02)
    shown = 0
    while gort.select(gort.recv(ticker.c), gort.recv(stop))[0] == 0:
        shown += 1
        sys.stderr.write(f"\r{state['done']} of {steps}")
    ticker.stop()
    sys.stderr.write("\n")
    return shown


def main(steps: int = 200) -> None:
    state, stop = {"done": 0}, gort.Chan[None]()
    bar = gort.go(show, steps, state, stop)
    total = gort.go(work, steps, state).join()
    stop.close()
    print("shown while working:", bar.join() > 1)
    print("total", total)


if __name__ == "__main__":
    gort.run(main)
