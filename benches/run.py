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
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from html import escape
from math import log10
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENVS = HERE / ".venv-bench"
PIP_PEERS = ("gevent", "greenlet", "uvloop", "trio", "runloom")
IMPLEMENTATIONS = (
    "gort", "go1", "go", "runloom", "greenlet", "gevent", "uvloop", "asyncio", "trio", "threads",
)  # fmt: skip
TIMEOUT_SECONDS = 300  # per program; a run that takes longer counts as failed
LIST_SECONDS = 60


class Machine:
    """The interpreters and programs found here, and why others were not."""

    def __init__(self, python: str, wanted: list[str]) -> None:
        self.python = python
        facts = "import platform,sys;print(platform.python_version(),sys.version_info[1])"
        self.python_version, minor = self._output([python, "-c", facts]).split()
        self.tag = f"3.{minor}"
        self.commands: dict[str, list[str]] = {}
        self.environments: dict[str, dict[str, str]] = {}
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        if "gort" in wanted:
            self.commands["gort"] = [python, str(HERE / "ours" / "gort_bench.py")]
        if "go" in wanted or "go1" in wanted:
            self._go(wanted)
        names = [n for n in wanted if n not in ("gort", "go", "go1")]
        if names:
            self._peers(names)
        self.known = {name: self._workloads(name) for name in list(self.commands)}

    @staticmethod
    def _output(command: list[str]) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _go(self, wanted: list[str]) -> None:
        go, names = shutil.which("go"), [n for n in ("go1", "go") if n in wanted]
        if go is None:
            self.missing.update(dict.fromkeys(names, "go is not on PATH"))
            return
        VENVS.mkdir(exist_ok=True)
        program = VENVS / "go-bench"
        built = subprocess.run(
            [go, "build", "-o", str(program), "."],
            cwd=HERE / "peers" / "go", capture_output=True, text=True, check=False,
        )  # fmt: skip
        if built.returncode:
            self.missing.update(dict.fromkeys(names, f"go build: {built.stderr.strip()[-200:]}"))
            return
        self.versions["go"] = self._output([go, "version"]).removeprefix("go version ")
        plain = {k: v for k, v in os.environ.items() if k != "GOMAXPROCS"}
        for name in names:
            self.commands[name] = [str(program)]
            self.environments[name] = plain | ({"GOMAXPROCS": "1"} if name == "go1" else {})

    def _peers(self, names: list[str]) -> None:
        """Install what is missing; remember in the venv what could not be, to ask pip once."""
        venv = VENVS / self.tag
        python, refused = venv / "bin" / "python", venv / "unavailable.json"
        if not python.exists():
            say(f"making {venv.relative_to(HERE.parent)}")
            VENVS.mkdir(exist_ok=True)
            (VENVS / ".gitignore").write_text("*\n")
            subprocess.run([self.python, "-m", "venv", str(venv)], check=True)
        reasons = json.loads(refused.read_text()) if refused.exists() else {}
        probe = "import importlib.metadata as m,sys;print(m.version(sys.argv[1]))"
        for name in names:
            if name in PIP_PEERS and name not in reasons:
                found = subprocess.run(
                    [str(python), "-c", probe, name], capture_output=True, text=True, check=False
                )
                if found.returncode:
                    say(f"installing {name}")
                    pip = subprocess.run(
                        [str(python), "-m", "pip", "install", "-q", name],
                        capture_output=True, text=True, check=False,
                    )  # fmt: skip
                    if pip.returncode:
                        reasons[name] = f"pip install {name} fails on Python {self.tag}"
                        refused.write_text(json.dumps(reasons))
                    found = subprocess.run(
                        [str(python), "-c", probe, name],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                if found.returncode == 0:
                    self.versions[name] = found.stdout.strip()
            if name in reasons:
                self.missing[name] = reasons[name]
                continue
            self.commands[name] = [str(python), str(HERE / "peers" / f"{name}_bench.py")]
            plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            self.environments[name] = plain  # PYTHONPATH may name gort's own tree

    def _workloads(self, name: str) -> set[str]:
        found = subprocess.run(
            [*self.commands[name], "--list"],
            capture_output=True, text=True, check=False, timeout=LIST_SECONDS, env=self.environments.get(name),
        )  # fmt: skip
        if found.returncode:
            self.missing[name] = found.stderr.strip().splitlines()[-1][:200]
            del self.commands[name]
            return set()
        return set(found.stdout.split())

    def header(self) -> dict[str, Any]:
        """Describe machine, versions and command for the results."""
        cpu = platform.processor()
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    cpu = line.partition(":")[2].strip()
                    break
        except OSError:
            pass
        return {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "kernel": f"{platform.system()} {platform.release()}",
            "python": self.python_version,
            "executable": self.python,
            "versions": self.versions,
            "missing": self.missing,
            "command": shlex.join([sys.executable, *sys.argv]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_before": round(os.getloadavg()[0], 2),
        }

    def measure(self, name: str, workload: str, n: int) -> dict[str, Any]:
        """Run one program once: its JSON line, or {"error": why}."""
        try:
            done = subprocess.run(
                [*self.commands[name], workload, str(n)],
                capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
                env=self.environments.get(name),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {TIMEOUT_SECONDS} s"}
        if done.returncode:
            last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return {"error": f"exit code {done.returncode}: {last[-1][:200]}"}
        try:
            line: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return {"error": f"no JSON line: {done.stdout[-100:]!r}"}
        return line


def say(text: str) -> None:
    """Tell on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


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
        if "bytes_per_op" in line:
            entry.setdefault("bytes_runs", []).append(line["bytes_per_op"])
    if sys.stderr.isatty():
        say("")
    for entries in found.values():
        for entry in entries.values():
            if entry["runs"]:
                runs = entry["runs"]
                entry.update(median=statistics.median(runs), min=min(runs), max=max(runs))
            if "bytes_runs" in entry:
                entry["bytes"] = statistics.median(entry["bytes_runs"])
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
        for other, bounds in work.get("reach", {}).items():
            bound = bounds.get(tag, bounds["default"])
            if other == "kb":
                size = entries.get("gort", {}).get("bytes")
                measured = size / 1000 if size else None
            else:
                measured = ratio(entries, other)
            rows.append(
                {
                    "workload": work["name"],
                    "against": "KB per goroutine" if other == "kb" else other,
                    "at_most": bound,
                    "measured": measured,
                    "met": None if measured is None else measured <= bound,
                    "same_n": other == "kb"
                    or entries.get("gort", {}).get("n") == entries.get(other, {}).get("n"),
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
    lines += ["", "figures to reach (gort's median over the other's; issue 3)"]
    for row in rows:
        verdict = {None: "n/a", True: "met", False: "MISSED"}[row["met"]]
        note = "" if row["same_n"] or row["met"] is None else "  (different n)"
        lines.append(
            f"{row['workload']:<11}{row['against']:>17}  at most {row['at_most']:<7g}"
            f" measured {number(row['measured'], 3):>8}  {verdict}{note}"
        )
    return "\n".join(lines)


def plot(path: Path, found: dict[str, Any], names: list[str], title: str) -> Path:
    """Draw medians on a logarithmic axis: PNG with matplotlib, an SVG of our own without."""
    works = [w for w, e in found.items() if any(e.get(n, {}).get("median") for n in names)]
    value = {(w, n): found[w].get(n, {}).get("median") for w in works for n in names}
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return _svg(path.with_name(path.name + ".svg"), works, names, value, title)
    figure, axes = pyplot.subplots(figsize=(14, 6))
    width = 0.85 / len(names)
    for i, name in enumerate(names):
        pairs = [(x + i * width, value[w, name]) for x, w in enumerate(works) if value[w, name]]
        if pairs:
            axes.bar([p[0] for p in pairs], [p[1] for p in pairs], width, label=name)
    axes.set_yscale("log")
    axes.set_xticks([x + 0.4 for x in range(len(works))], works)
    axes.set_ylabel("ns per operation")
    axes.set_title(title)
    axes.legend(ncol=5)
    figure.tight_layout()
    picture = path.with_name(path.name + ".png")
    figure.savefig(picture, dpi=110)
    return picture


def _svg(
    path: Path, works: list[str], names: list[str], value: dict[Any, float | None], title: str
) -> Path:
    colours = (
        "#d62728", "#1f77b4", "#6baed6", "#9467bd", "#bcbd22",
        "#2ca02c", "#17becf", "#ff7f0e", "#8c564b", "#7f7f7f",
    )  # fmt: skip
    known = [v for v in value.values() if v]
    low, high = int(log10(min(known))), int(log10(max(known))) + 1
    left, top, tall, bar = 70, 60, 360, 9
    step = bar * len(names) + 18
    wide = left + step * len(works) + 10

    def y(v: float) -> float:
        return top + tall * (1 - (log10(v) - low) / (high - low))

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{top + tall + 40}"'
            ' font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        ),
        f'<text x="{left}" y="18" font-size="14">{escape(title)}; ns per operation</text>',
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(
            f'<path d="M{left} {at:.1f}H{wide}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>'
        )
    for i, name in enumerate(names):
        at = left + i * 85
        parts.append(
            f'<rect x="{at}" y="30" width="10" height="10" fill="{colours[i % len(colours)]}"/>'
            f'<text x="{at + 14}" y="39">{escape(name)}</text>'
        )
    for j, work in enumerate(works):
        for i, name in enumerate(names):
            v = value[work, name]
            if v:
                parts.append(
                    f'<rect x="{left + 9 + j * step + i * bar}" y="{y(v):.1f}" width="{bar - 1}"'
                    f' height="{top + tall - y(v):.1f}" fill="{colours[i % len(colours)]}">'
                    f"<title>{escape(work)} {escape(name)} {v:,.0f} ns</title></rect>"
                )
        middle = left + j * step + step / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{top + tall + 16}" text-anchor="middle">{work}</text>'
        )
    path.write_text("\n".join([*parts, "</svg>\n"]))
    return path


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
    places = [HERE.parent / name / "bin" / "python" for name in (".venv-dev", ".venv")]
    ours = next((str(place) for place in places if place.exists()), sys.executable)
    parser = argparse.ArgumentParser(description="Speed of gort beside Go, gevent and others.")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--rounds", type=positive, help="runs of each program (default 5)")
    parser.add_argument("--only", help="workloads, separated by commas")
    parser.add_argument("--impl", help="implementations, separated by commas")
    parser.add_argument(
        "--python",
        default=ours,
        help="the Python that has gort (default: .venv-dev's, .venv's, else this one)",
    )
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    works = tomllib.loads((HERE / "workloads.toml").read_text())["workload"]
    only = chosen(options.only, [w["name"] for w in works], "workload")
    wanted = chosen(options.impl, list(IMPLEMENTATIONS), "implementation")
    works = [w for w in works if w["name"] in only]
    if shutil.which(options.python) is None:
        say(f"run.py: no Python at {options.python}")
        return 2

    machine = Machine(options.python, wanted)
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
