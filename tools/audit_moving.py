"""Looks for what C code keeps of its thread over calls: a goroutine may come back on another one.

    python tools/audit_moving.py               # the objects of the Python that runs this
    python tools/audit_moving.py FILE...       # these
    make audit                                 # of every CPython found; PY="3.11 3.14" picks

Disassembles each object (objdump) and follows, through every path of each function, registers and
stack slots that hold the result of __errno_location, an address of a thread-local, or the thread
pointer itself. Reported is what is used after a call that may park. `sched/moving.rs` rewrites the
first two kinds; the third it cannot, so one of those is a failure. What it cannot see: registers
that a callee saves in its own frame are followed as the caller's, jump tables lead everywhere that
nothing else leads to, and pointers put into other memory than the frame are not followed.
docs/design/003-moving.md says what it shows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pythons

MODULES = "_socket select _ssl _hashlib _posixsubprocess _sqlite3 _ctypes _queue _asyncio"
#: Prints the files of the interpreter and of what the boundary knows beside it.
FIND = """
import importlib, os, sys
for name in sys.argv[1:]:
    try: importlib.import_module(name)
    except ImportError: pass
for line in open("/proc/self/maps"):
    path = line.split(maxsplit=5)[-1].strip()
    name = os.path.basename(path)
    known = name.startswith(("libpython", "libssl", "libcrypto")) or "/lib-dynload/" in path
    if known or path == os.path.realpath(sys.executable): print(path)
"""
#: Calls that end on the thread they began on: no hooks, and nothing in them lets go of the GIL.
HARMLESS = re.compile(
    r"(__errno_location|__tls_get_addr|mem(cpy|move|set|cmp|chr|rchr)"
    r"|str(len|cmp|ncmp|chr|rchr|cpy|error)|malloc|calloc|realloc|free|pthread_(mutex_\w+|cond_(signal|broadcast)|[gs]etspecific|self)"
    r"|__stack_chk_fail|abort|__assert_fail|clock_gettime|time|getpid)(_r)?$"
)
SOURCES = {"__errno_location": "errno", "__tls_get_addr": "thread-local"}
REWRITTEN = ("errno", "thread-local")
POINTER = "thread pointer"
LOST = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")  # over a call
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
LINE = re.compile(
    r"^\s*([0-9a-f]+):\s+(?:(?:notrack|bnd|lock|rep\w*|data16|rex\.?\w*) )*(\S+)\s*(.*)$"
)
HEAD = re.compile(r"^([0-9a-f]+) <(.+)>:$")
MEMORY = re.compile(r"^(?P<disp>-?(?:0x)?[0-9a-f]*)\(%(?P<base>\w+)(?:,%(?P<index>\w+),?\d*)?\)$")
Held = frozenset[tuple[str, str, bool]]  # (place, kind, whether a call was in between)


class Step(NamedTuple):
    """One instruction."""

    at: int
    name: str
    operands: list[str]
    target: int | None
    callee: str


def wide(register: str) -> str:
    """The 64-bit register of which `register` is a part."""
    if register[0] == "r" and register[1:2].isdigit():
        return register.rstrip("dwb")
    stem = register[1:] if register[0] in "re" and len(register) == 3 else register
    short = {"al": "ax", "ah": "ax", "bl": "bx", "bh": "bx", "cl": "cx", "ch": "cx", "dl": "dx"}
    return "r" + short.get(stem, {"dh": "dx"}.get(stem, stem.removesuffix("l")))


def split(text: str) -> list[str]:
    """Operands; commas in parentheses separate nothing."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text)] if text else []


def imports(path: str) -> dict[int, str]:
    """The function behind each entry of the import table, by the entry's address."""
    text = run("objdump", "-R", path)
    found = re.findall(r"^([0-9a-f]+) R_X86_64_(?:GLOB_DAT|JUMP_SLOT)\s+(\w+)", text, re.M)
    return {int(at, 16): name for at, name in found}


def run(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def step(line: str, table: dict[int, str]) -> Step | None:
    """Read one line of the disassembly."""
    found = LINE.match(line)
    if not found:
        return None
    text, _, comment = found[3].partition("#")
    operands = split(re.sub(r"<.*>", "", text).strip())
    target, callee = None, ""
    if found[2].startswith(("call", "j")):
        named = re.search(r"<([^>@+]+)[^>]*>", found[3])
        if operands and re.fullmatch(r"[0-9a-f]+", operands[0]):
            target, callee = int(operands[0], 16), named[1] if named else "?"
        elif entry := re.search(r"([0-9a-f]+)", comment):
            callee = table.get(int(entry[1], 16), "")
    return Step(int(found[1], 16), found[2], operands, target, callee)


def functions(path: str) -> Iterator[tuple[str, list[Step]]]:
    """Name and steps of each function in which a thread's own address comes up."""
    table = imports(path)
    command = ["objdump", "-d", "--no-show-raw-insn", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listing:
        name, wanted = "", False
        lines: list[str] = []
        for line in [*(listing.stdout or ()), "0 <end>:"]:
            if head := HEAD.match(line):
                steps = [s for s in (step(each, table) for each in lines) if s] if wanted else []
                if steps and (any(s.callee in SOURCES for s in steps) or pointed(lines)):
                    yield name, steps
                name, lines, wanted = head[2], [], False
            elif line.strip():
                lines.append(line)
                wanted = wanted or "%fs:0x0" in line or "call" in line


def pointed(lines: list[str]) -> bool:
    """Whether the thread pointer is read."""
    return any("%fs:0x0," in line or "%fs:0x0\n" in line for line in lines)


def place(operand: str, state: Held) -> str | None:
    """The register or slot that an operand is, if it is one that is followed."""
    if operand.startswith("%") and ":" not in operand:
        return wide(operand[1:])
    memory = MEMORY.match(operand)
    frame = memory and not memory["index"] and memory["base"] in ("rsp", "rbp")
    if memory and frame and not any(at == memory["base"] for at, _, _ in state):
        return operand
    return None


def kinds(operand: str, state: Held) -> set[tuple[str, bool]]:
    """What an operand holds."""
    if operand == "%fs:0x0":
        return {(POINTER, False)}
    at = place(operand, state)
    return {(kind, over) for where, kind, over in state if where == at}


def moved(step_: Step, state: Held) -> Held:
    """What is held where after an instruction that is no call."""
    if not step_.operands or step_.name.startswith(
        ("cmp", "test", "bt", "j", "push", "nop", "ret")
    ):
        return state
    source, target = step_.operands[0], step_.operands[-1]
    at = place(target, state)
    if at is None:
        return state
    new: set[tuple[str, bool]] = set()
    if step_.name.startswith("mov") and len(step_.operands) == 2:
        new = kinds(source, state)
    elif step_.name.startswith("cmov"):
        new = kinds(source, state) | kinds(target, state)
    elif step_.name.startswith(("add", "sub")) and len(step_.operands) == 2:
        both = kinds(source, state) | kinds(target, state)
        new = {(inside(kind), over) for kind, over in both}
    elif step_.name.startswith("lea") and (memory := MEMORY.match(source)):
        parts = [wide(part) for part in (memory["base"], memory["index"]) if part]
        new = {(inside(kind), over) for where, kind, over in state if where in parts}
    elif step_.name.startswith("xchg"):
        return state
    kept = {entry for entry in state if entry[0] != at}
    return frozenset(kept | {(at, kind, over) for kind, over in new})


def inside(kind: str) -> str:
    """What a sum with such a value is."""
    return REWRITTEN[1] if kind == POINTER else kind


def called(step_: Step, state: Held) -> Held:
    """What is held after a call."""
    stays = {entry for entry in state if entry[0] not in LOST}
    if not HARMLESS.match(step_.callee):
        stays = {(at, kind, True) for at, kind, _ in stays}
    if step_.callee in SOURCES:
        stays.add(("rax", SOURCES[step_.callee], False))
    return frozenset(stays)


def used(step_: Step, state: Held) -> set[str]:
    """The kinds that this instruction goes by though a call came since they were got."""
    bases: set[str] = set()
    if step_.name.startswith("call"):
        bases.update(ARGUMENTS)
    if not step_.name.startswith(("lea", "nop")):
        for operand in step_.operands:
            if (memory := MEMORY.match(operand.lstrip("*"))) and place(operand, state) is None:
                bases.update(wide(part) for part in (memory["base"], memory["index"]) if part)
    return {kind for at, kind, over in state if over and at in bases}


def ends(step_: Step) -> bool:
    """Whether control never goes on behind this instruction."""
    return step_.name.startswith(("jmp", "ret", "ud2", "hlt"))


def follow(steps: list[Step]) -> set[str]:
    """The kinds that a function uses over calls."""
    index = {s.at: i for i, s in enumerate(steps)}
    reached = {i + 1 for i, s in enumerate(steps[:-1]) if not ends(s)}
    reached.update(index[s.target] for s in steps if s.target in index)
    elsewhere = [i for i in range(len(steps)) if i not in reached]
    before: dict[int, Held] = defaultdict(frozenset)
    work = [i for i, s in enumerate(steps) if s.callee in SOURCES or "%fs:0x0" in s.operands]
    found: set[str] = set()
    while work:
        i = work.pop()
        this, state = steps[i], before[i]
        found |= used(this, state)
        is_call = this.name.startswith("call")
        after = called(this, state) if is_call else moved(this, state)
        next_ = [] if ends(this) else [i + 1]
        if this.name.startswith("j") and this.target in index:
            next_.append(index[this.target])
        elif this.name.startswith("jmp") and this.operands and this.operands[0].startswith("*"):
            next_.extend(elsewhere)
        for j in next_:
            if j < len(steps) and not after <= before[j]:
                before[j] |= after
                work.append(j)
    return found


def audit(path: str) -> dict[str, list[str]]:
    """By kind the functions of an object that use one over a call."""
    found: dict[str, list[str]] = {kind: [] for kind in (*REWRITTEN, POINTER)}
    for name, steps in functions(path):
        for kind in follow(steps):
            found[kind].append(name)
    return found


def cached(path: str, folder: Path | None) -> dict[str, list[str]]:
    """The same, remembered by what is in the file and in this one."""
    if folder is None:
        return audit(path)
    content = Path(path).read_bytes() + Path(__file__).read_bytes()
    kept = folder / f"moving-{hashlib.sha256(content).hexdigest()[:32]}.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(audit(path)))
        part.replace(kept)
    found: dict[str, list[str]] = json.loads(kept.read_text())
    return found


def objects(*command: object) -> list[str]:
    """The files of the Python that `command` runs which the boundary knows."""
    return sorted({*run(*map(str, command), "-c", FIND, *MODULES.split()).split()})


def report(paths: list[str], folder: Path | None, verbose: bool) -> int:
    """Print a line for each object; how many functions hold what is not rewritten."""
    bad = 0
    print(f"{'errno':>6} {'TLS':>5} {'other':>6}  object")
    for path in paths:
        found = cached(path, folder)
        errno, local, other = (found[kind] for kind in (*REWRITTEN, POINTER))
        print(f"{len(errno):6} {len(local):5} {len(other):6}  {path}", flush=True)
        bad += len(other)
        if verbose or other:
            for kind, names in found.items():
                for name in names:
                    print(f"{'':21}{kind}: {name}")
    return bad


def main() -> None:
    """Audit the files given, or those of a Python, or of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*")
    parser.add_argument("--every", action="store_true", help="the objects of every CPython found")
    parser.add_argument("--cache", type=Path, help="folder for results, by content of the files")
    parser.add_argument("--verbose", action="store_true", help="name the functions")
    options = parser.parse_args()
    if shutil.which("objdump") is None:
        raise SystemExit("objdump is missing: apt-get install binutils")
    bad = 0
    if options.every:
        for python in pythons.wanted():
            print(f"== {python.label}", flush=True)
            command = python.command(python.program, cwd=python.root or Path.cwd())
            paths = [f"{python.root or ''}{path}" for path in objects(*command)]
            bad += report(paths, options.cache, options.verbose)
    else:
        paths = options.files or objects(sys.executable)
        bad = report(paths, options.cache, options.verbose)
    if bad:
        raise SystemExit("a function keeps what sched/moving.rs does not rewrite")


if __name__ == "__main__":
    main()
