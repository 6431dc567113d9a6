"""Random programs against the rules: `fuzz.py COUNT [SEED]` runs COUNT programs from SEED on.

Programs run in children, a batch in each, in both modes of the boundary and with and without a
seed for the order of goroutines. The first that differs is made small and printed with its log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "fuzz"
    import fuzz  # noqa: F401

from .programs import Program, make, smaller

HERE = Path(__file__).resolve()
BATCH = 100
CHILD_SECONDS = 120
DIFFERS = 3  # exit code of a child that found a difference


def run_here(program: Program) -> None:
    """Run one program in this process; raises what differs."""
    import gort

    from .oracle import Oracle
    from .runner import Run

    run = Run(program)
    waiting = gort.run(run.main)
    chans = [(len(chan), chan.closed) for chan in run.chans]
    log = list(run.log)
    try:
        Oracle(program, log).check(waiting, chans)
    except AssertionError as error:
        error.add_note("\n".join(map(str, log)))
        raise
    gort.run(run.end)


def batch(seeds: range) -> None:
    """The child: all programs of some seeds, or those on stdin when there are none."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
    import traceback

    programs = [make(seed) for seed in seeds] or json.load(sys.stdin)
    for number, program in enumerate(programs):
        try:
            run_here(program)
        except AssertionError:
            where = f"seed {seeds[number]}" if len(seeds) else "this program"
            print(f"{where}\n{traceback.format_exc()}", flush=True)
            os._exit(DIFFERS)


def settings(seed: int) -> dict[str, str]:
    """The environment of the batch that begins at a seed."""
    turn = seed // BATCH
    return {
        "GORT_SEED": str(0 if turn % 4 == 0 else seed + 1),
        "GORT_BOUNDARY": str(int(turn % 3 != 0)),
        "GORT_MAXPROCS": "1",
    }


def child(seeds: range, program: Program | None, env: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a child; a child that hangs has failed, too."""
    argv = [sys.executable, "-X", "faulthandler", str(HERE)]
    argv += ["--child", str(seeds.start), str(len(seeds))]
    text = None if program is None else json.dumps([program])
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=CHILD_SECONDS,
            env={**os.environ, **env}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as hung:
        return 1, f"it hung\n{hung.stdout or b''!r}\n{hung.stderr or b''!r}"
    return done.returncode, done.stdout + done.stderr


def least(program: Program, env: dict[str, str], seconds: float = 60) -> tuple[Program, str]:
    """A program that fails as well, from which nothing can be left out; and what it printed."""
    end, text = time.monotonic() + seconds, ""
    shrinks = True
    while shrinks and time.monotonic() < end:
        shrinks = False
        for candidate in smaller(program):
            code, output = child(range(0), candidate, env)
            if code:
                program, text, shrinks = candidate, output, True
                break
    return program, text


def explain(seeds: range, output: str, env: dict[str, str]) -> str:
    """What to print of a batch that failed."""
    lines = [f"differs: {' '.join(f'{k}={v}' for k, v in env.items())}", output[-6000:]]
    for seed in seeds:
        code, one = child(range(seed, seed + 1), None, env)
        if code:
            program, text = least(make(seed), env)
            lines += [f"seed {seed} alone:", json.dumps(program, indent=1), text or one]
            break
    return "\n".join(lines)


def fuzz_all(count: int, first: int, tell: Any = lambda done: None) -> str:
    """Run the programs; "" or what failed. `tell` is called with how many are done."""
    for start in range(first, first + count, BATCH):
        seeds = range(start, min(start + BATCH, first + count))
        env = settings(start)
        code, output = child(seeds, None, env)
        if code or output:
            return explain(seeds, output, env)
        tell(seeds.stop - first)
    return ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        start, count = options.child
        batch(range(start, start + count))
        return

    def tell(done: int) -> None:
        end = "\r" if sys.stdout.isatty() and done < options.count else "\n"
        print(f"{done:,} of {options.count:,} programs", end=end, flush=True)

    failed = fuzz_all(options.count, options.seed, tell)
    if failed:
        sys.exit(failed)


if __name__ == "__main__":
    main()
