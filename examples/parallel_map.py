"""A function over many values, so many at once: in order, as completed, and when one fails."""

import gort

running, most = 0, 0


def slow_square(n: int) -> int:
    global running, most
    running += 1
    most = max(most, running)
    gort.sleep(0.001 * (5 - n % 5))
    running -= 1
    if n == 13:
        raise ValueError("thirteen")
    return n * n


def main() -> None:
    with gort.scope() as scope:
        print(list(scope.map(slow_square, range(10), limit=4)), "with", most, "at once")
    with gort.scope() as scope:
        results = list(scope.map(slow_square, range(10), limit=4, ordered=False))
    print(sorted(results), "as completed")
    try:
        with gort.scope() as scope:
            for value in scope.map(slow_square, range(10, 1_000_000), limit=4):
                print(value)
    except* ValueError as errors:
        print("then", errors.exceptions[0])
    print(gort.num_goroutine(), "goroutine is left: main")


if __name__ == "__main__":
    gort.run(main)
