"""A pipeline whose consumer has enough: one cancel ends all stages, however far they are."""

import itertools

import gort
from gort.context import Context, background, with_cancel


def generate(ctx: Context, out: gort.SendChan[int]) -> None:
    for n in itertools.count(2):  # never ends by itself
        out.send(n, ctx=ctx)


def keep_primes(ctx: Context, source: gort.RecvChan[int], out: gort.SendChan[int]) -> None:
    while True:
        n = source.recv(ctx=ctx)
        if all(n % d for d in range(2, int(n**0.5) + 1)):
            out.send(n, ctx=ctx)


def main() -> None:
    numbers, primes = gort.Chan[int](), gort.Chan[int]()
    with with_cancel(background()) as ctx:
        stages = [
            gort.go(generate, ctx, numbers.sender()),
            gort.go(keep_primes, ctx, numbers.receiver(), primes.sender()),
        ]
        print(*(primes.recv() for _ in range(10)))
    for stage in stages:
        try:
            stage.join()
        except gort.ContextCanceled as end:
            print(end)
    print(gort.num_goroutine(), "goroutine is left: main")


if __name__ == "__main__":
    gort.run(main)
