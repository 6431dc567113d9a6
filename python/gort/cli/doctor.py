"""`gort doctor`: what this Python, kernel and CPU give to the runtime."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator

import gort
from gort._core import _memory_pressure, _usable_cpus
from gort._supported import ENVIRONMENT
from gort.cli._output import say

__all__ = ["add_arguments", "facts", "main"]

_NOT_THERE = ("free-threaded Python",)
_SWITCH = {"x86_64": "own assembly for x86-64", "aarch64": "own assembly for AArch64"}
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


def switch_path() -> str:
    """Say how a goroutine's stack is switched on this CPU."""
    machine = platform.machine()
    return _SWITCH.get(machine, f"none for {machine}")


def huge_pages() -> str:
    """Say how the kernel gives transparent huge pages, which stacks must not get."""
    setting = _first_line("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = setting.partition("[")[2].partition("]")[0]
    return f"{chosen} (stacks are kept out of them)" if chosen else "unknown"


def _mapping_count() -> int | None:
    """Count the mappings of this process; None where there is no /proc."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return None


def _python() -> Iterator[tuple[str, str]]:
    """Give what is known of this Python."""
    yield "python", f"{platform.python_implementation()} {platform.python_version()}"
    yield "python support", _version_support()
    yield "python binary", sys.executable or "unknown"
    yield "python build", f"{platform.python_compiler()}, {sysconfig.get_platform()}"
    debug = bool(sysconfig.get_config_var("Py_DEBUG"))
    yield "python GIL", "on" + (", debug build" if debug else "")


def _system() -> Iterator[tuple[str, str]]:
    """Give what is known of kernel, C library and CPU."""
    yield "kernel", f"{platform.system()} {platform.release()}"
    yield "C library", " ".join(platform.libc_ver()).strip() or "unknown"
    model = _proc_field("/proc/cpuinfo", "model name") or platform.processor() or "unknown"
    yield "CPU", f"{model}, {platform.machine()}"
    yield "CPUs", f"{os.cpu_count()}, usable {_usable_cpus()}"
    yield "cgroup CPU limit", _first_line("/sys/fs/cgroup/cpu.max") or "none seen"
    yield "cgroup memory limit", _first_line("/sys/fs/cgroup/memory.max") or "none seen"
    yield "memory available", _proc_field("/proc/meminfo", "MemAvailable") or "unknown"


def _memory() -> Iterator[tuple[str, str]]:
    """Give what goroutine stacks depend on."""
    yield "guard pages", guard_mode()
    yield "huge pages", huge_pages()
    most = _first_line("/proc/sys/vm/max_map_count") or "unknown"
    yield "mappings", f"{_mapping_count()} of at most {most}"
    yield "memory pressure", _memory_pressure() or "nothing here tells of it"
    yield "overcommit", _first_line("/proc/sys/vm/overcommit_memory") or "unknown"


def _pass_through(status: gort.boundary.Status) -> str:
    """Say why calls that block do not park; empty when they do."""
    if status.parking:
        return ""
    if os.environ.get("GORT_BOUNDARY") == "0":
        return "GORT_BOUNDARY=0"
    broken = [item for item in status.objects if item.kind == "interpreter"]
    if not broken:
        return "the interpreter has no import table (a static C library?)"
    return broken[0].error or "the interpreter does not import what has to be answered"


def _boundary() -> Iterator[tuple[str, str]]:
    """Give what of the C library the scheduler answers here."""
    import _socket  # noqa: F401 - the objects that wait, so that they are seen
    import select  # noqa: F401

    with contextlib.suppress(ImportError):
        import _ssl  # noqa: F401
    status = gort.boundary.status()
    reason = _pass_through(status)
    yield (
        "boundary parking",
        f"off: {reason}; a blocked call keeps an OS thread" if reason else "on",
    )
    yield "boundary identity", "each goroutine" if status.identity else "the OS thread's"
    for item in status.objects:
        if item.error is not None or item.names or item.left:
            yield "boundary object", f"{item.path} ({item.kind}): {_replaced(item)}"
            for why, names in _reasons(item):
                yield "boundary left alone", f"{names}: {why}"
    for call in sorted(status.calls.values(), key=lambda call: call.name):
        yield f"calls of {call.name}", f"{call.parked} parked, {call.handed_off} handed off"
    for advice in status.advice():
        yield "boundary advice", advice


def _replaced(item: gort.boundary.ObjectStatus) -> str:
    """Say what is replaced in an object."""
    return item.error or f"{len(item.names)} replaced: {', '.join(item.names) or 'none'}"


def _reasons(item: gort.boundary.ObjectStatus) -> Iterator[tuple[str, str]]:
    """Give each reason for leaving functions of an object alone, and their names."""
    for why in sorted(set(item.left.values())):
        yield why, ", ".join(sorted(name for name, reason in item.left.items() if reason == why))


def _threads() -> str:
    """Say whether threads can be goroutines here."""
    was = gort.threads.enabled()
    try:
        gort.threads.enable()
    except RuntimeError as error:
        return f"not here: {error}"
    if was:
        return "on"
    gort.threads.disable()
    return "can be had: gort run --threads, GORT_THREADS=1 or gort.threads.enable()"


def facts() -> Iterator[tuple[str, str]]:
    """Give the report as (subject, finding) pairs.

    Example:
        >>> from gort.cli.doctor import facts
        >>> dict(facts())["python support"].startswith("supported")
        True
    """
    yield "gort", f"{gort.__version__} at {os.path.dirname(gort.__file__)}"
    yield from _python()
    yield from _system()
    yield "switch path", switch_path()
    yield from _memory()
    yield from _boundary()
    yield "threads as goroutines", _threads()
    yield "GOMAXPROCS", str(gort.gomaxprocs())
    for key, value in sorted(gort.stats().items()):
        yield f"runtime {key}", str(value)
    for key in ENVIRONMENT:
        yield key, os.environ.get(key, "not set")
    for missing in _NOT_THERE:
        yield "not there yet", missing


def main(options: argparse.Namespace) -> int:
    """Print the report."""
    for subject, finding in facts():
        say(f"{subject:<22} {finding}")
    return 0
