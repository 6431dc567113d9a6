"""Fan-in: many channels merged into one, which closes when the last of them does."""

from collections import Counter

import gort


def source(name: str, count: int) -> gort.RecvChan[str]:
    """Start a goroutine and give the receiving end of what it produces."""
    out: gort.Chan[str] = gort.Chan()

    def produce() -> None:
        for n in range(count):
            out.send(f"{name}{n}")
        out.close()

    gort.go(produce)
    return out.receiver()


def merge(*sources: gort.RecvChan[str]) -> gort.RecvChan[str]:
    out: gort.Chan[str] = gort.Chan()
    wg = gort.WaitGroup()

    def copy(source: gort.RecvChan[str]) -> None:
        for value in source:
            out.send(value)

    def close() -> None:
        wg.wait()
        out.close()

    for each in sources:
        wg.go(copy, each)
    gort.go(close)
    return out.receiver()


def main() -> None:
    merged = list(merge(source("a", 3), source("b", 4), source("c", 5)))
    print(sorted(Counter(value[0] for value in merged).items()))
    in_order = [value for value in merged if value[0] == "b"]
    print(in_order)  # each source stays in order; how they mix is open


if __name__ == "__main__":
    gort.run(main)
