"""Speed of gort beside Go, gevent and others: every workload of workloads.toml, interleaved.

    python benches/run.py [--quick] [--rounds K] [--group boundary] [--only spawn,sieve]
                           [--impl gort,go1] [--python PATH] [--before PATH]

Prints a table of medians with the ratios of gort to Go at GOMAXPROCS=1, gevent, uvloop and threads,
and the figures to reach; writes results/<python>.json and a plot beside it (with the group, -quick
and -part in the name for runs that are not whole). Exit code 1 when a program of gort's fails, 2
for bad arguments. Peers are installed into benches/.venv-bench/<python>; what cannot be had is n/a.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tomllib
from typing import Any

from machine import HERE, HTTP, HTTP_ONLY, IMPLEMENTATIONS, Machine, say
from plot import plot

# Figures to reach that are gort's own: name in workloads.toml -> (what it is, key of the results,
# factor, whether more is better).
OWN = {
    "kb": ("KB each", "bytes", 1e-3, False),
    "os_threads": ("OS threads", "os_threads", 1.0, False),
    "extra_ns": ("ns more", "extra_ns", 1.0, False),
    "share": ("of time without", "share", 1.0, False),
    "ms": ("ms", "median", 1e-6, False),
    "p99_ms": ("ms, p99", "p99_ms", 1.0, False),
    "seconds": ("s together", "seconds", 1.0, False),
    "lone_share": ("of lone speed", "lone_share", 1.0, True),
}
# Others that no figure is measured against run fewer rounds, so that a whole run stays short.
FEWER_ROUNDS = 3
COMPARED = ("gort", "go1", "go", "gevent", "runloom")
GROUPS = ("core", "boundary", "net", "http")
# What the JSON line of a program says beside further figures.
FRAME = ("workload", "n", "ns_per_op")


def size_of(work: dict[str, Any], name: str, quick: bool) -> int:
    """Take the size for one implementation."""
    own = work.get("sizes", {}).get(name)
    return int(own[quick] if own else work["quick" if quick else "n"])


def run_all(
    machine: Machine, works: list[dict[str, Any]], rounds: int, quick: bool
) -> dict[str, dict[str, Any]]:
    """Run every program `rounds` times, interleaved, and sum up each."""
    plan = [
        (turn, work, name)
        for turn in range(rounds)
        for work in works
        if turn < work.get("rounds", rounds)
        for name in IMPLEMENTATIONS
        if turn < FEWER_ROUNDS or name in COMPARED
        if turn < work.get("turns", {}).get(name, rounds)
        if work["name"] in machine.known.get(name, ())
    ]
    found: dict[str, dict[str, Any]] = {w["name"]: {} for w in works}
    for i, (turn, work, name) in enumerate(plan, 1):
        entry = found[work["name"]].setdefault(name, {"n": size_of(work, name, quick), "runs": []})
        if "error" in entry:
            continue
        label = f"round {turn + 1}/{rounds} {work['name']} {name}"
        bar = "#" * (24 * i // len(plan))
        if sys.stderr.isatty():
            print(f"\r[{bar:<24}] {i}/{len(plan)} {label:<40}", end="", file=sys.stderr, flush=True)
        elif i % 20 == 1:
            say(f"[{bar:<24}] {i}/{len(plan)} {label}")
        line = machine.measure(name, work["group"], work["name"], entry["n"])
        if "error" in line:
            entry["error"] = line["error"]
            say(f"\n{name} {work['name']} failed: {line['error']}")
            continue
        entry["n"] = line[
            "n"
        ]  # less than was asked for where a limit of the system stands against it
        entry["runs"].append(line["ns_per_op"])
        for key in line.keys() - set(FRAME):
            entry.setdefault(f"{key}_runs", []).append(line[key])
    if sys.stderr.isatty():
        say("")
    for entries in found.values():
        for entry in entries.values():
            if entry["runs"]:
                runs = entry["runs"]
                entry.update(median=statistics.median(runs), min=min(runs), max=max(runs))
            for key in [k.removesuffix("_runs") for k in entry if k.endswith("_runs")]:
                entry[key] = statistics.median(entry[f"{key}_runs"])
    return found


def ratio(entries: dict[str, Any], other: str, key: str = "median") -> float | None:
    """Divide gort's median by another's, of the time or of a further figure."""
    ours, theirs = entries.get("gort", {}).get(key), entries.get(other, {}).get(key)
    return ours / theirs if ours and theirs else None


def reached(works: list[dict[str, Any]], found: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    """Compare with the figures to reach; `measured` is None where one side is missing."""
    rows = []
    for work in works:
        entries = found[work["name"]]
        ours = entries.get("gort", {})
        for name, bounds in work.get("reach", {}).items():
            bound = bounds.get(tag, bounds.get("default"))
            if bound is None:
                continue
            other, _, figure = name.partition(".")  # "threads.p99_ms": that figure over threads'
            title, key, factor, more = OWN.get(
                other, (f"{other} {figure}".strip(), figure or "median", 1.0, False)
            )
            if other in OWN:
                measured = ours[key] * factor if key in ours else None
            else:
                measured = ratio(entries, other, key)
            met = None if measured is None else (bound <= measured if more else measured <= bound)
            rows.append(
                {
                    "workload": work["name"],
                    "against": title,
                    "limit": "at least" if more else "at most",
                    "bound": bound,
                    "measured": measured,
                    "met": met,
                    "same_n": other in OWN or ours.get("n") == entries.get(other, {}).get("n"),
                }
            )
    return rows


def number(value: float | None, digits: int = 0) -> str:
    """Write a figure for the table."""
    return "n/a" if value is None else f"{value:,.{digits}f}"


def further(value: float | None) -> str:
    """Write a further figure of a workload, whose size may be any; empty when there is none."""
    return "" if value is None else f"{value:,.{0 if abs(value) >= 100 else 2}f}"


def report(
    header: dict[str, Any], found: dict[str, Any], rows: list[dict[str, Any]], names: list[str]
) -> str:
    """Write the table that is printed."""
    width = max(12, *(len(name) + 2 for name in names))
    lines = [
        (f"{header['cpu']}, {header['cores']} cores, {header['kernel']}, "
        f"load {header['load_before']}"),
        f"Python {header['python']}; "
        + ", ".join(f"{k} {v}" for k, v in sorted(header["versions"].items())),
        header["command"],
        *(f"n/a: {name}: {why}" for name, why in header["missing"].items()),
        "",
        "ns per operation, medians; spread is (highest - lowest) / median of gort (of go1 without)",
        f"{'workload':<15}" + "".join(f"{n:>{width}}" for n in names)
        + f"{'spread':>8}{'/go1':>7}{'/gevent':>9}{'/uvloop':>9}{'/threads':>10}",
    ]  # fmt: skip
    for name, entries in found.items():
        cells = "".join(f"{number(entries.get(n, {}).get('median')):>{width}}" for n in names)
        base = next((entries[k] for k in ("gort", "go1") if entries.get(k, {}).get("median")), None)
        spread = f"{(base['max'] - base['min']) / base['median']:.0%}" if base else "n/a"
        against = (
            number(ratio(entries, o), d)
            for o, d in (("go1", 2), ("gevent", 3), ("uvloop", 3), ("threads", 3))
        )
        columns = "".join(f"{text:>{w}}" for text, w in zip(against, (7, 9, 9, 10), strict=True))
        lines.append(f"{name:<15}{cells}{spread:>8}{columns}")
        keys = {k.removesuffix("_runs") for e in entries.values() for k in e if k.endswith("_runs")}
        for key in sorted(keys):
            cells = "".join(f"{further(entries.get(n, {}).get(key)):>{width}}" for n in names)
            lines.append(f"  {key:<13}{cells}".rstrip())
    lines += ["", "figures to reach (gort's median over the other's, or gort's own)"]
    for row in rows:
        verdict = {None: "n/a", True: "met", False: "MISSED"}[row["met"]]
        note = "" if row["same_n"] or row["met"] is None else "  (different n)"
        lines.append(
            f"{row['workload']:<15}{row['against']:>18}  {row['limit']:<8} {row['bound']:<7g}"
            f" measured {number(row['measured'], 3):>8}  {verdict}{note}"
        )
    return "\n".join(lines)


def chosen(text: str | None, known: list[str], what: str) -> list[str]:
    """Check a comma-separated list; all when none is given."""
    names = text.split(",") if text else known
    for name in names:
        if name not in known:
            say(f"run.py: unknown {what} {name!r}; there are {', '.join(known)}")
            sys.exit(2)
    return [n for n in known if n in names]


def positive(text: str) -> int:
    """Read a count of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def read_options() -> argparse.Namespace:
    """Read the command line; the programs it names go into the environment of the workloads."""
    venv = HERE.parent / ".venv" / "bin" / "python"
    ours = str(venv) if venv.exists() else sys.executable
    parser = argparse.ArgumentParser(description="Speed of gort beside Go, gevent and others.")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--rounds", type=positive, help="runs of each program (default 5)")
    parser.add_argument("--group", choices=GROUPS, help="only the workloads of one group")
    parser.add_argument("--only", help="workloads, separated by commas")
    parser.add_argument("--impl", help="implementations, separated by commas")
    parser.add_argument(
        "--python",
        default=ours,
        help="the Python that has gort (default: that of .venv, else this one)",
    )
    parser.add_argument("--go-program", help="benches/peers/go, already compiled")
    parser.add_argument("--load-program", help="benches/load/load.c, already compiled")
    parser.add_argument(
        "--before", help="a Python with a gort of before, which boundary_off is measured against"
    )
    options = parser.parse_args()
    for name, value in (("BENCH_LOAD", options.load_program), ("BENCH_BEFORE", options.before)):
        if value:
            os.environ[name] = value
    return options


def main() -> int:
    """Run what the command line asks for."""
    options = read_options()
    rounds = options.rounds or (2 if options.quick else 5)
    works = tomllib.loads((HERE / "workloads.toml").read_text())["workload"]
    works = [w for w in works if options.group in (None, w["group"])]
    only = chosen(options.only, [w["name"] for w in works], "workload")
    wanted = chosen(options.impl, list(IMPLEMENTATIONS), "implementation")
    works = [w for w in works if w["name"] in only]
    if shutil.which(options.python) is None:
        say(f"run.py: no Python at {options.python}")
        return 2

    groups = [g for g in GROUPS if any(w["group"] == g for w in works)]
    if not options.impl:  # nothing is installed that no workload asks for
        dropped = HTTP_ONLY if "http" not in groups else set(wanted) - set(HTTP)
        wanted = [n for n in wanted if n not in dropped or ("http" in groups and len(groups) > 1)]
    machine = Machine(options.python, wanted, groups, options.go_program)
    header = machine.header() | {"rounds": rounds, "quick": options.quick}
    found = run_all(machine, works, rounds, options.quick)
    rows = reached(works, found, machine.tag)
    listed = {w["name"] for w in works}
    names = [n for n in IMPLEMENTATIONS if n in wanted and listed & machine.known.get(n, set())]
    print(report(header, found, rows, names))

    name = machine.tag + (f"-{options.group}" if options.group else "")
    name += "-quick" if options.quick else ""
    name += "-part" if options.only or options.impl else ""
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"machine": header, "results": found, "figures_to_reach": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    say(f"\nwrote {path}")
    if any(e.get("median") for entries in found.values() for e in entries.values()):
        title = f"gort, Python {machine.python_version}, {header['cpu']}"
        picture = plot(
            path.with_name(name), found, [n for n in names if n in machine.commands], title
        )
        say(f"wrote {picture}")

    failed = [
        f"{w}: {e['gort']['error']}" for w, e in found.items() if "error" in e.get("gort", {})
    ]
    if "gort" in machine.missing:
        failed.append(machine.missing["gort"])
    for line in failed:
        say(f"FAILED gort {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
