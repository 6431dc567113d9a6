"""The mix of everything for a long time, watched from outside: do memory, threads and descriptors grow?

    python soak.py SECONDS [FOLDER]

Prints a table and the slopes, draws them into FOLDER/soak-3.x.svg, and ends with code 1 if anything
grows. The first third is left out: pools fill up to what the mix asks for at most.

Of threads and descriptors the floors are compared, what a tenth of the looks are at or below: how
many there are at a look depends on which parts of the mix run just then, and medians of that differ
where nothing grows. What leaks is there at every look, and lifts the floor as well.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAMPLES = 240
MEDIAN, FLOOR = ("median", 0.5), ("floor", 0.1)  # name, and which part of the looks is below
#: What is watched: unit, what of a third is compared, and what may come on top of that of the
#: second third in the last one.
WATCHED = {
    "RSS": ("MB", MEDIAN, 8.0),
    "threads": ("", FLOOR, 2.0),
    "descriptors": ("", FLOOR, 2.0),
}
Sample = tuple[float, float, float, float]  # seconds, and the three


def look(pid: int, seconds: float) -> Sample:
    """What the system says of a process now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    rss = int(status["VmRSS"].split()[0]) / 1024
    return seconds, rss, int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares: growth per hour."""
    x, y = (sum(column) / len(points) for column in zip(*points, strict=True))
    spread = sum((a - x) ** 2 for a, _ in points)
    return 3600 * sum((a - x) * (b - y) for a, b in points) / spread if spread else 0.0


def watch(seconds: float) -> tuple[list[Sample], subprocess.CompletedProcess[str]]:
    """Run the mix and sample it."""
    argv = [sys.executable, "-X", "faulthandler", str(HERE / "mix.py"), str(seconds)]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    child = subprocess.Popen(
        [*argv, str(random.randrange(1 << 30))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    begun, samples = time.monotonic(), []
    with child:
        while child.poll() is None:
            now = time.monotonic() - begun
            if now < seconds and now >= len(samples) * seconds / SAMPLES:
                samples.append(look(child.pid, now))
                show = "  ".join(f"{v:,.0f}" for v in samples[-1][1:])
                print(f"\r{now:6,.0f} of {seconds:,.0f} s   {show}    ", end="", flush=True)
            time.sleep(min(0.05, seconds / SAMPLES))
        out, err = child.communicate()
    print()
    return samples, subprocess.CompletedProcess(argv, child.returncode, out, err)


def verdict(samples: list[Sample]) -> tuple[list[str], bool]:
    """The table, and whether all of it is flat."""
    third = len(samples) // 3
    lines, flat = [], True
    for i, (name, (unit, (kind, part), more)) in enumerate(WATCHED.items(), 1):
        late = [(s[0], s[i]) for s in samples[third:]]
        thirds = samples[third : 2 * third], samples[2 * third :]
        second, last = (sorted(s[i] for s in those)[int(part * len(those))] for those in thirds)
        flat = flat and last <= second + more
        lines.append(
            f"| {name}, {kind} | {second:,.1f} {unit} | {last:,.1f} {unit} | "
            f"{max(s[i] for s in samples):,.1f} {unit} | {slope(late):+,.2f} {unit}/h |"
        )
    head = ["| | second third | last third | highest | slope of both |"]
    return [*head, "|---|---|---|---|---|", *lines], flat


def picture(samples: list[Sample], title: str) -> str:
    """Three curves, each on its own scale, as SVG."""
    wide, tall, parts = 900, 130, []
    for i, (name, (unit, *_)) in enumerate(WATCHED.items(), 1):
        top, most = 30 + (i - 1) * (tall + 30), max(s[i] for s in samples) or 1
        points = " ".join(
            f"{60 + s[0] / samples[-1][0] * (wide - 80):.1f},{top + tall * (1 - s[i] / most):.1f}"
            for s in samples
        )
        parts.append(
            f'<rect x="60" y="{top}" width="{wide - 80}" height="{tall}" fill="#f6f6f6"/>'
            f'<text x="64" y="{top + 14}">{name}, up to {most:,.0f} {unit}</text>'
            f'<polyline fill="none" stroke="#1f77b4" stroke-width="1.5" points="{points}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{60 + 3 * (tall + 30)}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="60" y="20" font-size="14">{title}</text>{"".join(parts)}</svg>\n'
    )


def main(seconds: float, folder: Path | None = None) -> int:
    """Run, print and draw; 1 if the mix failed or something grows."""
    samples, done = watch(seconds)
    if done.returncode or done.stderr:
        print(f"the mix ended with code {done.returncode}\n{done.stdout}\n{done.stderr[-6000:]}")
        return 1
    version = ".".join(platform.python_version_tuple()[:2])
    title = f"{seconds:,.0f} s of everything at once, CPython {platform.python_version()}"
    lines, flat = verdict(samples)
    print(f"\n{title}: {done.stdout.split()[0]} rounds\n", *lines, sep="\n")
    print("\nflat" if flat else "\nSOMETHING GROWS")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(f"soak-{version}.svg").write_text(picture(samples, title))
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *map(Path, sys.argv[2:3])))
