"""docs/compat.md from docs/compat/results-3.x.json."""

from __future__ import annotations

import json
from pathlib import Path

from compare import BESIDE_MAIN

MODES = {
    "main": "in the main goroutine (`gort run`)",
    "goroutine": "in a goroutine beside main",
    "handoff": "in a goroutine beside main, GORT_BOUNDARY=0",
    "threads": "threads as goroutines (`gort run --threads`)",
}
FILE_PERCENT, TOTAL_PERCENT = 95.0, 98.0
SHOWN_IDS = 12  # of the tests with one reason; the results file has all
NO_REASON = "not explained"

INTRO = """# CPython's own tests under gort

Made by `make compat`; do not edit. CPython's test files, unchanged, run by the plain interpreter and by the same
interpreter with gort. **Plain** is what passes in each of two plain runs on this machine: tests that fail there (no
network, root, a missing locale), that are skipped, and that pass only sometimes are not counted. **Here** is how much of
that passes under gort. **Thread** is how much of it passes in the plain interpreter when the tests run in a thread beside
main: a test that needs the main thread fails there as it does in a goroutine beside main.

The aim: 98 % in total, 95 % of each file, and nothing that hangs; for goroutines beside main that is of what passes in a
thread beside main. What falls short is bold. Every test id that differs is in `docs/compat/`.
"""


def percent(part: int, whole: int) -> float:
    """How much of the whole, rounded down to a tenth, so that 100 means all."""
    return int(1000 * part / whole) / 10 if whole else 100.0


def mode_rows(files: dict, mode: str) -> list[str]:
    """The table of one mode: a row per file and the total."""
    rows = [
        "| file | plain | here | failed | hang | crash | skipped | not run | % | thread | % of thread |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    keys = ("passed", "failed", "hang", "crash", "skipped", "not run")
    total = dict.fromkeys(("plain", "thread", "both", "own_hangs", *keys), 0)
    for name, entry in files.items():
        if mode not in entry["modes"] or entry["plain"].get("absent"):
            continue
        here, plain = entry["modes"][mode], entry["plain"]["passed"]
        counts = {key: here.get(key, 0) for key in keys}
        counts["own_hangs"] = here["own_hangs"]
        row = {"plain": plain, **counts, "thread": entry["thread"], "both": here["both"]}
        total = {key: total[key] + row[key] for key in total}
        rows.append(row_text(name, row, mode))
    rows.append(row_text("**total**", total, mode))
    return rows


def judged(row: dict, mode: str) -> float:
    """The percentage that the aim is about: beside main it is of what passes in a thread there."""
    if mode in BESIDE_MAIN:
        return percent(row["both"], row["thread"])
    return percent(row["passed"], row["plain"])


def row_text(name: str, row: dict, mode: str) -> str:
    """One row; what falls short of the aim is bold."""
    aim = TOTAL_PERCENT if name.startswith("*") else FILE_PERCENT
    bold = "**" if judged(row, mode) < aim or row["own_hangs"] else ""
    cells = [row[key] for key in ("plain", "passed", "failed", "hang", "crash", "skipped")]
    numbers = " | ".join(f"{cell:,}" for cell in [*cells, row["not run"]])
    of_plain, of_thread = (
        f"{bold if is_judged else ''}{share:.1f}{bold if is_judged else ''}"
        for share, is_judged in (
            (percent(row["passed"], row["plain"]), mode not in BESIDE_MAIN),
            (percent(row["both"], row["thread"]), mode in BESIDE_MAIN),
        )
    )
    return f"| {name} | {numbers} | {of_plain} | {row['thread']:,} | {of_thread} |"


def reason_lines(files: dict, mode: str) -> list[str]:
    """Differences grouped by file and reason, the unexplained ones with what they said."""
    lines = []
    for name, entry in files.items():
        here = entry["modes"].get(mode)
        if not here:
            continue
        groups: dict[str, list[dict]] = {}
        for diff in [*here["differs"], *here["outside"]]:
            groups.setdefault(diff.get("reason", NO_REASON), []).append(diff)
        for reason, diffs in sorted(groups.items()):
            lines.append(f"- **{name}**, {len(diffs)}: {reason}")
            lines += shown_ids(diffs, with_line=reason == NO_REASON)
    return lines


def shown_ids(diffs: list[dict], with_line: bool) -> list[str]:
    """The tests of one reason; only so many, or one line each when there is something to say."""
    if not with_line:
        names = ", ".join(f"`{short_id(diff['test'])}`" for diff in diffs[:SHOWN_IDS])
        more = f" and {len(diffs) - SHOWN_IDS} more" if len(diffs) > SHOWN_IDS else ""
        return [f"  {names}{more}"]
    lines = [
        f"  - `{short_id(diff['test'])}`: {diff['status']}"
        + (f", `{diff['line'].replace('`', chr(39))}`" if diff.get("line") else "")
        + (", passes alone" if diff.get("alone") else "")
        for diff in diffs[:SHOWN_IDS]
    ]
    if len(diffs) > SHOWN_IDS:
        lines.append(f"  - and {len(diffs) - SHOWN_IDS} more")
    return lines


def short_id(name: str) -> str:
    """An id without the package that all have."""
    return name.removeprefix("test.")


def python_section(data: dict) -> list[str]:
    """All of one Python."""
    machine = data["machine"]
    lines = [
        f"## Python {data['python']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, as {machine['user']}; "
        f"{data['openssl']}; gort {data['gort']}; {data['date']}. "
        f"Resources: {', '.join(data['resources']) or 'none'}.",
        "",
    ]
    files = data["files"]
    for mode, title in MODES.items():
        if any(mode in entry["modes"] for entry in files.values()):
            lines += [f"### {data['tag']}: {title}", "", *mode_rows(files, mode), ""]
            differs = reason_lines(files, mode)
            lines += [*differs, ""] if differs else ["No difference.", ""]
    return [*lines, *left_out(files)]


def left_out(files: dict) -> list[str]:
    """What is not counted: files that are not there, tests that fail or waver plain."""
    lines = []
    for name, entry in files.items():
        plain = entry["plain"]
        if entry.get("source"):
            lines.append(f"- {name}: {entry['source']}")
        if plain.get("absent"):
            lines.append(f"- {name}: not run: {plain['absent']}")
        for key, words in (("failed", "fails plain"), ("unsteady", "only sometimes passes plain")):
            if plain.get(key):
                names = ", ".join(f"`{short_id(test)}`" for test in plain[key][:SHOWN_IDS])
                more = len(plain[key]) - SHOWN_IDS
                lines.append(
                    f"- {name}: {words}: {names}" + (f" and {more} more" if more > 0 else "")
                )
    return ["Not counted, or not this Python's own:", "", *lines, ""] if lines else []


def write(folder: Path, document: Path) -> None:
    """Make the document from every results file there is."""
    parts = [INTRO]
    paths = sorted(folder.glob("results-*.json"), key=lambda path: int(path.stem.split(".")[1]))
    for path in paths:
        parts += python_section(json.loads(path.read_text()))
    document.write_text("\n".join(parts).rstrip() + "\n")
