"""Generate, square, print: stages joined by channels, and a WaitGroup that waits for the last."""

import gort


def generate(count: int, out: gort.SendChan[int]) -> None:
    for n in range(count):
        out.send(n)
    out.close()


def square(source: gort.RecvChan[int], out: gort.SendChan[int]) -> None:
    for n in source:
        out.send(n * n)
    out.close()


def show(source: gort.RecvChan[int]) -> None:
    for n in source:
        print(n)


def main() -> None:
    numbers, squares = gort.Chan[int](), gort.Chan[int](5)
    wg = gort.WaitGroup()
    wg.go(generate, 5, numbers.sender())
    wg.go(square, numbers.receiver(), squares.sender())
    wg.go(show, squares.receiver())
    wg.wait()  # without this line main would return, and the others end with it


if __name__ == "__main__":
    gort.run(main)
