"""Which Pythons and which GORT_ environment variables gort can serve.

Looked at before the compiled core is loaded, so that what does not fit gets a sentence that says
what to do. It must parse and run on Pythons that gort does not support.
"""

from __future__ import annotations

import os
import sys

__all__ = ["ENVIRONMENT", "complaint", "malloc_wanted", "sigquit_wanted", "threads_wanted"]

ENVIRONMENT = (
    "GORT_BOUNDARY",
    "GORT_GUARD",
    "GORT_MALLOC",
    "GORT_MAXPROCS",
    "GORT_MAXTHREADS",
    "GORT_PANIC",
    "GORT_POLICY",
    "GORT_PY_INCLUDE",  # read when gort is built, harmless afterwards
    "GORT_SCHEDTRACE",
    "GORT_SEED",
    "GORT_SHRINK",
    "GORT_SIGQUIT",
    "GORT_SLICE",
    "GORT_STACK",
    "GORT_THREADS",
)


def complaint() -> str:
    """Say what does not fit and what to do about it; empty when all is well."""
    name, version = sys.implementation.name, sys.version_info
    number = f"{version[0]}.{version[1]}"
    if name != "cpython" or version < (3, 11):
        return f"gort needs CPython 3.11 or newer; this is {name} {number}. Install gort there."
    if "t" in getattr(sys, "abiflags", ""):
        return (
            f"gort does not support free-threaded builds yet; this is python{number}t. "
            f"Use the ordinary build, python{number}."
        )
    unknown = sorted(
        key for key in os.environ if key.startswith("GORT_") and key not in ENVIRONMENT
    )
    if unknown:
        return (
            f"unknown environment variable {', '.join(unknown)}: unset it, or use one of "
            f"{', '.join(ENVIRONMENT)}"
        )
    if os.environ.get("GORT_BOUNDARY", "1") not in ("0", "1"):
        return "GORT_BOUNDARY must be 0 (blocking calls keep their OS thread) or 1 (the default)"
    if os.environ.get("GORT_THREADS", "0") not in ("0", "1"):
        return "GORT_THREADS must be 1 (threads become goroutines) or 0 (the default)"
    if os.environ.get("GORT_THREADS") == "1" and os.environ.get("GORT_BOUNDARY") == "0":
        return "GORT_THREADS=1 needs calls that park: unset GORT_BOUNDARY or GORT_THREADS"
    if os.environ.get("GORT_MALLOC", "0") not in ("0", "1"):
        return "GORT_MALLOC must be 1 (gort serves Python's memory) or 0 (the default)"
    if os.environ.get("GORT_PANIC", "") not in ("", "report", "exit"):
        return "GORT_PANIC must be report (the default) or exit"
    if os.environ.get("GORT_SIGQUIT", "") not in ("", "dump", "exit"):
        return "GORT_SIGQUIT must be dump (SIGQUIT writes all goroutines) or exit (and ends then)"
    return ""


def threads_wanted() -> bool:
    """Tell whether GORT_THREADS asks for threads as goroutines."""
    return os.environ.get("GORT_THREADS") == "1"


def malloc_wanted() -> bool:
    """Tell whether GORT_MALLOC asks for gort's allocator under Python's objects."""
    return os.environ.get("GORT_MALLOC") == "1"


def sigquit_wanted() -> str:
    """Tell what GORT_SIGQUIT has SIGQUIT do: dump, exit or nothing of gort's."""
    return os.environ.get("GORT_SIGQUIT", "")
