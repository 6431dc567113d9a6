"""Speed of gort beside Go, gevent and others: every workload of workloads.toml, interleaved.

    python benches/run.py [--quick] [--rounds K] [--only spawn,sieve] [--impl gort,go1]
                           [--python PATH]

Prints a table of medians with the ratios of gort to Go at GOMAXPROCS=1 and to gevent, and the
figures to reach; writes results/<python>.json and a plot beside it (with -quick and -part in the
name for runs that are not whole). Exit code 1 when a program of gort's fails, 2 for bad arguments.
Peers are installed into benches/.venv-bench/<python>; what cannot be had is n/a.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tomllib
from typing import Any

from machine import HERE, IMPLEMENTATIONS, Machine, say
from plot import plot

# Figures to reach that are gort's own: name in workloads.toml -> (what it is, key of the results,
# factor, whether more is better).
OWN = {
    "kb": ("KB per goroutine", "bytes", 1e-3, False),
    "ms": ("ms", "median", 1e-6, False),
    "seconds": ("s together", "seconds", 1.0, False),
    "lone_share": ("of lone speed", "lone_share", 1.0, True),
}
# Others that no figure is measured against run fewer rounds, so that a whole run stays short.
FEWER_ROUNDS = 3
COMPARED = ("gort", "go1", "go", "gevent", "runloom")


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
        line = machine.measure(name, work["name"], entry["n"])
        if "error" in line:
            entry["error"] = line["error"]
            say(f"\n{name} {work['name']} failed: {line['error']}")
            continue
        entry["runs"].append(line["ns_per_op"])
        for key in ("bytes", "seconds", "lone_share"):
            if key in line:
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


def ratio(entries: dict[str, Any], other: str) -> float | None:
    """Divide gort's median by another's."""
    ours, theirs = entries.get("gort", {}).get("median"), entries.get(other, {}).get("median")
    return ours / theirs if ours and theirs else None


def reached(works: list[dict[str, Any]], found: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    """Compare with the figures to reach; `measured` is None where one side is missing."""
    rows = []
    for work in works:
        entries = found[work["name"]]
        ours = entries.get("gort", {})
        for other, bounds in work.get("reach", {}).items():
            bound = bounds.get(tag, bounds["default"])
            title, key, factor, more = OWN.get(other, (other, "median", 1.0, False))
            if other in OWN:
                measured = ours[key] * factor if key in ours else None
            else:
                measured = ratio(entries, other)
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


def report(
    header: dict[str, Any], found: dict[str, Any], rows: list[dict[str, Any]], names: list[str]
) -> str:
    """Write the table that is printed."""
    lines = [
        (f"{header['cpu']}, {header['cores']} cores, {header['kernel']}, "
        f"load {header['load_before']}"),
        f"Python {header['python']}; "
        + ", ".join(f"{k} {v}" for k, v in sorted(header["versions"].items())),
        header["command"],
        *(f"n/a: {name}: {why}" for name, why in header["missing"].items()),
        "",
        "ns per operation, medians; spread is (highest - lowest) / median of gort (of go1 without)",
        f"{'workload':<11}" + "".join(f"{n:>10}" for n in names)
        + f"{'spread':>8}{'/go1':>7}{'/gevent':>9}",
    ]  # fmt: skip
    for name, entries in found.items():
        cells = "".join(f"{number(entries.get(n, {}).get('median')):>10}" for n in names)
        base = next((entries[k] for k in ("gort", "go1") if entries.get(k, {}).get("median")), None)
        spread = f"{(base['max'] - base['min']) / base['median']:.0%}" if base else "n/a"
        against = number(ratio(entries, "go1"), 2), number(ratio(entries, "gevent"), 3)
        lines.append(f"{name:<11}{cells}{spread:>8}{against[0]:>7}{against[1]:>9}")
        if any("bytes" in e for e in entries.values()):
            cells = "".join(f"{number(entries.get(n, {}).get('bytes')):>10}" for n in names)
            lines.append(f"{'  bytes':<11}{cells}")
    lines += ["", "figures to reach (gort's median over the other's, or gort's own)"]
    for row in rows:
        verdict = {None: "n/a", True: "met", False: "MISSED"}[row["met"]]
        note = "" if row["same_n"] or row["met"] is None else "  (different n)"
        lines.append(
            f"{row['workload']:<11}{row['against']:>17}  {row['limit']:<8} {row['bound']:<7g}"
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


def main() -> int:
    """Run what the command line asks for."""
    venv = HERE.parent / ".venv" / "bin" / "python"
    ours = str(venv) if venv.exists() else sys.executable
    parser = argparse.ArgumentParser(description="Speed of gort beside Go, gevent and others.")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--rounds", type=positive, help="runs of each program (default 5)")
    parser.add_argument("--only", help="workloads, separated by commas")
    parser.add_argument("--impl", help="implementations, separated by commas")
    parser.add_argument(
        "--python",
        default=ours,
        help="the Python that has gort (default: that of .venv, else this one)",
    )
    parser.add_argument("--go-program", help="benches/peers/go, already compiled")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    works = tomllib.loads((HERE / "workloads.toml").read_text())["workload"]
    only = chosen(options.only, [w["name"] for w in works], "workload")
    wanted = chosen(options.impl, list(IMPLEMENTATIONS), "implementation")
    works = [w for w in works if w["name"] in only]
    if shutil.which(options.python) is None:
        say(f"run.py: no Python at {options.python}")
        return 2

    machine = Machine(options.python, wanted, options.go_program)
    header = machine.header() | {"rounds": rounds, "quick": options.quick}
    found = run_all(machine, works, rounds, options.quick)
    rows = reached(works, found, machine.tag)
    names = [n for n in IMPLEMENTATIONS if n in wanted]
    print(report(header, found, rows, names))

    name = machine.tag + ("-quick" if options.quick else "")
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
