"""Whether `make shuttle` finds what it should: one line of the scheduler is taken out at a time.

Each mutant is the core without something that it needs. A run that passes has not noticed, and
this program fails unless the mutant is known to be missed (`MISSED`: and why). A text that is not
there any more fails, too: this list goes with the code. Takes a quarter of an hour.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from pythons import ROOT

COPY = ROOT / "target" / "mutants"
CLEAN = ROOT / "target" / "no-mutant"
PARTS = ("rust", "Cargo.toml", "Cargo.lock", "clippy.toml")
SCHED = "rust/core/src/sched"
COMMAND = (
    "cargo", "test", "--quiet", "--locked", "--profile", "fast", "-p", "gort-core", "--lib",
    "shuttled",
)  # fmt: skip
FENCE = "fence(Ordering::SeqCst); // pairs with the fence in"


@dataclass(frozen=True)
class Mutant:
    """`old`, so many `times` in `file`, becomes `new`; `missed` says why nothing need notice."""

    name: str
    file: str
    old: str
    new: str = ""
    missed: str = ""
    times: int = 1


IDLE = f"{SCHED}/idle.rs"
MUTANTS = (
    Mutant("no fence in wake_one", IDLE, f"{FENCE} `release_and_recheck`"),
    Mutant(
        "no fence after the P is given up",
        IDLE,
        f"{FENCE} `wake_one`\n        let is_needed",
        "let is_needed",
        missed="the look from the idle list, with a fence of its own, sees the work",
    ),
    Mutant(
        "no fence before either look",
        IDLE,
        f"{FENCE} `wake_one`",
        times=2,
    ),
    Mutant(
        "no second look before the sleep",
        IDLE,
        "self.rt.has_work() && self.acquire_idle_processor()",
        "false && self.acquire_idle_processor()",
        missed="as above",
    ),
    Mutant(
        "no look from the idle list",
        IDLE,
        "if rt.has_work() && self.wake_self()",
        "if false && self.wake_self()",
    ),
    Mutant(
        "work found at the second look wakes nobody else",
        IDLE,
        "if is_needed && spun {",
        "if false {",
    ),
    Mutant(
        "last one that spins wakes nobody",
        IDLE,
        "if self.rt.spinning.fetch_sub(1, Ordering::SeqCst) == 1 {",
        "if self.rt.spinning.fetch_sub(1, Ordering::SeqCst) == 77 {",
    ),
    Mutant(
        "keeper stays keeper without timers",
        IDLE,
        "self.drop_keeper(); // it will sleep for longer than the next timer that is set",
    ),
    Mutant(
        "earlier timer finds the old keeper",
        IDLE,
        "if idle.keeper == 0 || next < idle.keeper_when {",
        "if idle.keeper == 0 {",
        missed="the timer is late only, and a model says of no time that it is too long",
    ),
    Mutant("note without a wake", IDLE, "futex::wake_one(&raw const (*m).note);"),
    Mutant("poller without a wake", IDLE, "(*m).rt.net.wake();"),
    Mutant(
        "mail is not looked at before the sleep",
        IDLE,
        "std::mem::take(&mut self.mail)",
        "Vec::new()",
    ),
    Mutant(
        "new work wakes nobody",
        f"{SCHED}/runtime.rs",
        "self.wake_one(ptr::null_mut());\n        }\n    }\n\n    /// Puts a runnable",
        "}\n    }\n\n    /// Puts a runnable",
    ),
    Mutant(
        "no fence after a push into the local queue",
        f"{SCHED}/runtime.rs",
        f"{FENCE} `release_and_recheck`: the push before the look",
    ),
    Mutant(
        "global queue wakes nobody",
        f"{SCHED}/runtime.rs",
        "self.inject.push(g);\n        self.wake_one(owner);",
        "self.inject.push(g);\n        let _ = owner;",
    ),
    Mutant(
        "no fence before the look of who gives its P up",
        f"{SCHED}/net.rs",
        f"{FENCE} `wake_one`: the P is given up before the look",
    ),
    Mutant(
        "call that blocks wakes nobody",
        f"{SCHED}/blocking.rs",
        "rt.wake_one(ptr::null_mut());",
    ),
    Mutant(
        "P is taken in the middle of an exchange",
        f"{SCHED}/blocking.rs",
        "|| v.in_scheduler.load(Ordering::Acquire) {",
        "{",
    ),
    Mutant(
        "sysmon reads the state first",
        f"{SCHED}/sysmon.rs",
        "let inside = m.in_hook.load(Ordering::Relaxed)"
        " || m.in_scheduler.load(Ordering::Acquire);\n"
        "        let host = m.visible_host.load(Ordering::Acquire);",
        "let host = m.visible_host.load(Ordering::Acquire);\n"
        "        let inside = m.in_hook.load(Ordering::Relaxed)"
        " || m.in_scheduler.load(Ordering::Acquire);",
    ),
    Mutant(
        "state is deleted without sysmon's lock",
        f"{SCHED}/bundles.rs",
        "let _guard = self.state_delete.lock().unwrap_or_else(|e| e.into_inner());\n"
        "                (self.host.delete_thread)",
        "(self.host.delete_thread)",
    ),
    Mutant(
        "nobody takes the P of a call that lasts",
        f"{SCHED}/sysmon.rs",
        "if lasts && self.send_taker(p) {",
        "if lasts && false {",
    ),
    Mutant(
        "who computes is not preempted",
        f"{SCHED}/preempt.rs",
        "p.is_overdue.store(true, Ordering::Relaxed);",
    ),
    Mutant(
        "main waits for a thread that computes",
        f"{SCHED}/outside.rs",
        "let must_come = must_come || m.mail_count.load(Ordering::Relaxed) != 0;",
    ),
    Mutant(
        "main is not rescued",
        f"{SCHED}/mail.rs",
        "(*m).is_stuck.store(true, Ordering::Relaxed);",
    ),
    Mutant(
        "goroutine readied while it parks is forgotten",
        f"{SCHED}/machine.rs",
        "} else {\n                        self.rt.enqueue(g);\n                    }",
        "}",
    ),
    Mutant(
        "cancelled wait is not readied",
        f"{SCHED}/runtime.rs",
        "super::park::ready_wait(&*wait);\n            true",
        "true",
    ),
    Mutant(
        "cancellation that comes before the park is forgotten",
        f"{SCHED}/park.rs",
        "rt.cancel_at_park(g, wait);",
    ),
    Mutant(
        "more Ps wake nobody",
        f"{SCHED}/processors.rs",
        "            self.wake_one(std::ptr::null_mut());",
    ),
    Mutant(
        "queue of a P that goes is left there",
        f"{SCHED}/processors.rs",
        "self.queue_to_all(unsafe { &*p });\n        }\n        if count",
        "let _ = p;\n        }\n        if count",
    ),
    Mutant(
        "timers of a P that goes are left there",
        f"{SCHED}/processors.rs",
        "unsafe { self.run_timers(p) };",
        "let _ = p;",
    ),
    Mutant(
        "two take what is queued",
        f"{SCHED}/local_queue.rs",
        "if is_exclusive() {\n            self.head.store",
        "if true {\n            self.head.store",
    ),
    Mutant(
        "registry is looked at once",
        "rust/core/src/goroutine/registry.rs",
        "while free.0.is_null() {",
        "if free.0.is_null() {",
    ),
    Mutant(
        "descriptor's waiter is counted after the look",
        "rust/core/src/netpoll/poll_desc.rs",
        f"{FENCE} `raise`: counted, then the number read",
        missed="the count is a read-modify-write, seen at once here; loom finds it in netpoll",
    ),
    Mutant(
        "bubble whose last one blocks is not driven on",
        f"{SCHED}/bubble.rs",
        "(until_ns, bubble.claim_driver())",
        "(until_ns, ptr::null_mut())",
    ),
    Mutant(
        "bubble counts who was served before it parked as blocked",
        f"{SCHED}/bubble.rs",
        "if wait.outcome() == Outcome::Pending {",
        "if true {",
    ),
    Mutant(
        "bubble counts who is woken as blocked",
        f"{SCHED}/park.rs",
        "runtime_of(g).bubbles.note_woken(g);",
    ),
    Mutant(
        "bubble that nobody is left in is not driven on",
        f"{SCHED}/bubble.rs",
        "bubble.is_over |= bubble.main == (*g).id;\n                bubble.claim_driver()",
        "bubble.is_over |= bubble.main == (*g).id;\n                ptr::null_mut()",
    ),
    Mutant(
        "seat in the poller stays taken",
        f"{SCHED}/net.rs",
        "self.rt.net.leave_seat();",
    ),
)


def keep() -> None:
    """Copy what the mutants are made of: the tree may change meanwhile."""
    shutil.rmtree(CLEAN, ignore_errors=True)
    for name in PARTS:
        CLEAN.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, CLEAN / name)
        else:
            shutil.copy(ROOT / name, CLEAN / name)


def apply(mutant: Mutant) -> bool:
    """Make the copy of the core the mutant; False if its text is not there."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(CLEAN, COPY)
    path = COPY / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != mutant.times:
        print(f"{mutant.name}: {text.count(mutant.old)} times in {mutant.file}: {mutant.old!r}")
        return False
    path.write_text(text.replace(mutant.old, mutant.new))
    return True


def first_failure() -> str | None:
    """Run the schedules on the copy; the first test that fails and its schedule, or None."""
    env = {
        **os.environ,
        "RUSTFLAGS": "--cfg shuttle --cfg model -A warnings",
        "CARGO_TARGET_DIR": str(ROOT / "target" / "shuttle"),
        "SHUTTLE": os.environ.get("SHUTTLE", "1000"),
        "RUST_BACKTRACE": "0",
    }
    done = subprocess.run(
        COMMAND,
        cwd=COPY, env=env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    if done.returncode and "could not compile" in output:
        print(output[-3000:])
        return None
    failures = re.findall(r"schedule (\d+) failed.*::(\w+)", output)
    if not done.returncode:
        return None
    return "; ".join(f"{test} ({schedule})" for schedule, test in failures) or "it crashed"


def main() -> None:
    """All mutants, or those whose names contain an argument's words."""
    wanted = sys.argv[1:]
    keep()
    wrong = 0
    for mutant in MUTANTS:
        if wanted and not any(word in mutant.name for word in wanted):
            continue
        if not apply(mutant):
            wrong += 1
            continue
        found = first_failure()
        is_right = (found is None) == bool(mutant.missed)
        wrong += not is_right
        missed = f"not found: {mutant.missed or 'it should be'}"
        print(f"{mutant.name}: {found or missed}", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
