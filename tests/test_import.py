"""What `import gort` does to a process: little, and nothing that stays when nobody uses it.

The time it takes is a bench (workload `import`); here stands what the time depends on.
"""

from __future__ import annotations

import json
import subprocess
import sys

# Modules that cost milliseconds, or that would hint at something being patched.
HEAVY = {
    "argparse", "asyncio", "concurrent.futures", "ctypes", "dataclasses", "importlib.metadata", "inspect",
    "json", "logging", "multiprocessing", "re", "selectors", "signal", "socket", "ssl", "subprocess",
    "tempfile", "threading", "traceback", "typing", "unittest", "weakref",
}  # fmt: skip

PROBE = """
import json, os, sys
before = set(sys.modules)
threads = len(os.listdir("/proc/self/task"))
import gort
json.dump({
    "threads": len(os.listdir("/proc/self/task")) - threads,
    "modules": sorted(set(sys.modules) - before),
}, sys.stdout)
"""

# Every attribute of what other goroutine libraries patch, by identity, before and after.
PATCHED = """
import _thread, builtins, concurrent.futures, os, queue, select, signal, socket, ssl, subprocess
import sys, threading, time
modules = (_thread, builtins, concurrent.futures, os, queue, select, signal, socket, ssl, subprocess,
           threading, time, threading.Thread, threading.Event, socket.socket, subprocess.Popen,
           queue.Queue, threading.Condition)
changing = {"__warningregistry__"}
def look():
    return {(m.__name__, k): id(v) for m in modules for k, v in vars(m).items() if k not in changing}
def handlers():
    return [signal.getsignal(n) for n in sorted(signal.valid_signals())]
def hooks():
    return sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile(), sys.meta_path[:]
before, signals, hooked = look(), handlers(), hooks()
import gort
gort.chan, gort.sync, gort.time
after = look()
print(sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k)),
      signals == handlers(), hooked == hooks())
"""


def output(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_starts_no_thread_and_loads_no_heavy_module():
    found = json.loads(output(PROBE))
    assert found["threads"] == 0
    assert HEAVY.isdisjoint(found["modules"])
    others = [name for name in found["modules"] if not name.startswith("gort")]
    assert len(others) < 25, others


def test_import_patches_nothing_and_sets_no_handler():
    assert output(PATCHED) == "[] True True\n"


def test_import_of_a_probe_that_patches_is_noticed():
    patching = PATCHED.replace("import gort\n", "import gort; time.sleep = print\n")
    assert output(patching) == "[('time', 'sleep')] True True\n"


def test_import_inside_a_thread_works():
    code = "import threading\ndef body():\n import gort\n print(gort.go(pow, 2, 5).join())\n"
    assert output(code + "t = threading.Thread(target=body); t.start(); t.join()") == "32\n"


def test_import_with_an_unknown_variable_says_which_and_what_there_is():
    code = "try:\n import gort\nexcept ImportError as e:\n print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100,
        env={"GORT_MAXPORCS": "2"}, check=False,
    )  # fmt: skip
    assert "GORT_MAXPORCS" in done.stdout
    assert "GORT_MAXPROCS" in done.stdout
