r"""Profiles that `go tool pprof` opens: of files, and of a running program over HTTP.

    >>> import gort.pprof, io
    >>> file = io.BytesIO()
    >>> gort.pprof.lookup("goroutine").write_to(file)
    >>> file.getvalue()[:2]
    b'\x1f\x8b'

Go's runtime/pprof and net/http/pprof with Python frames: goroutine, goroutineleak, heap, allocs,
threadcreate, block, mutex, those of your own (`new_profile`), and the CPU profile. Nothing listens
and nothing is sampled before one of these functions is called. See docs/pprof.md.
"""

from __future__ import annotations

from gort.pprof._contention import set_block_profile_rate, set_mutex_profile_fraction
from gort.pprof._cpu import start_cpu_profile, stop_cpu_profile
from gort.pprof._profiles import Profile, lookup, new_profile, profiles
from gort.pprof._serve import Server, app, serve

__all__ = [
    "Profile",
    "Server",
    "app",
    "lookup",
    "new_profile",
    "profiles",
    "serve",
    "set_block_profile_rate",
    "set_mutex_profile_fraction",
    "start_cpu_profile",
    "stop_cpu_profile",
]
