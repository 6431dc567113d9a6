"""`gort doctor`: what this Python, kernel and CPU give to the runtime."""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator

import gort
from gort.cli._output import say

__all__ = ["add_arguments", "facts", "main"]

_TESTED = ((3, 11), (3, 15))  # the oldest and newest minor version gort is tested on
_MADV_GUARD_INSTALL = 102  # Linux 6.13


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort doctor`: none."""


def _first_line(path: str) -> str:
    """Read the first line of a small system file; empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _proc_field(path: str, name: str) -> str:
    """Read the value of a `name: value` line; empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return ""


def guard_mode() -> str:
    """Find out how stacks can be guarded, by asking the kernel to guard one page."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    anchor = ctypes.c_char.from_buffer(page)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        address = ctypes.addressof(anchor)
        if libc.madvise(address, mmap.PAGESIZE, _MADV_GUARD_INSTALL) == 0:
            libc.madvise(address, mmap.PAGESIZE, _MADV_GUARD_INSTALL + 1)
            return "MADV_GUARD_INSTALL: no limit on guarded stacks"
    except (AttributeError, OSError):
        pass
    finally:
        del anchor
        page.close()
    maps = _first_line("/proc/sys/vm/max_map_count") or "unknown"
    return f"mprotect: guarded stacks are limited by vm.max_map_count = {maps}"


def _version_support() -> str:
    """Say whether this Python is one gort is tested on."""
    version = sys.version_info[:2]
    low, high = (f"{major}.{minor}" for major, minor in _TESTED)
    if version > _TESTED[1]:
        return f"newer than what gort is tested on ({low} to {high}): use with care"
    return f"supported (gort is tested on {low} to {high})"


def facts() -> Iterator[tuple[str, str]]:
    """Give the report as (subject, finding) pairs.

    Example:
        >>> from gort.cli.doctor import facts
        >>> dict(facts())["python support"].startswith("supported")
        True
    """
    yield "gort", f"{gort.__version__} at {os.path.dirname(gort.__file__)}"
    yield "python", f"{platform.python_implementation()} {platform.python_version()}"
    yield "python support", _version_support()
    yield "python binary", sys.executable or "unknown"
    yield "python build", f"{platform.python_compiler()}, {sysconfig.get_platform()}"
    debug = bool(sysconfig.get_config_var("Py_DEBUG"))
    yield "python GIL", "on" + (", debug build" if debug else "")
    yield "kernel", f"{platform.system()} {platform.release()}"
    yield "C library", " ".join(platform.libc_ver()).strip() or "unknown"
    yield "guard pages", guard_mode()
    model = _proc_field("/proc/cpuinfo", "model name") or platform.processor() or "unknown"
    yield "CPU", f"{model}, {platform.machine()}"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _first_line("/sys/fs/cgroup/cpu.max")
    yield "CPUs", f"{os.cpu_count()}, usable {usable}" + (f", cgroup {quota}" if quota else "")
    yield "GOMAXPROCS", str(gort.gomaxprocs())
    yield "memory available", _proc_field("/proc/meminfo", "MemAvailable") or "unknown"
    for key, value in sorted(gort.stats().items()):
        yield f"runtime {key}", str(value)
    for key in sorted(os.environ):
        if key.startswith("GORT_"):
            yield key, os.environ[key]


def main(options: argparse.Namespace) -> int:
    """Print the report."""
    for subject, finding in facts():
        say(f"{subject:<22} {finding}")
    return 0
