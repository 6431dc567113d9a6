"""Go's prime sieve: every prime adds a goroutine that drops its multiples."""

import sys

import gort


def numbers(out: gort.Chan[int]) -> None:
    n = 2
    while True:
        out.send(n)
        n += 1


def drop_multiples(source: gort.Chan[int], out: gort.Chan[int], prime: int) -> None:
    for n in source:
        if n % prime:
            out.send(n)


def primes(count: int) -> list[int]:
    found = []
    source: gort.Chan[int] = gort.Chan()
    gort.go(numbers, source)
    for _ in range(count):
        prime = source.recv()
        found.append(prime)
        filtered: gort.Chan[int] = gort.Chan()
        gort.go(drop_multiples, source, filtered, prime)
        source = filtered
    return found


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    print(*gort.run(primes, count))  # when main returns, the filters end with it
