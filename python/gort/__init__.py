"""gort: goroutines, channels and select for CPython, on a compiled M:N scheduler.

    >>> import gort
    >>> ch = gort.Chan()
    >>> g = gort.go(ch.send, "hello")
    >>> ch.recv()
    'hello'

Importing gort starts no thread and patches nothing, except that GORT_THREADS=1 makes threads
goroutines from the import on, GORT_MALLOC=1 serves Python's memory, and GORT_SIGQUIT has SIGQUIT
write a dump. The names here are the
compiled objects themselves wherever that matters for speed; gort.sync and gort.time hold the rest
of Go's sync and time packages, whose names are importable from here as well.
"""

from __future__ import annotations

from gort._supported import complaint as _complaint
from gort._supported import malloc_wanted as _malloc_wanted
from gort._supported import sigquit_wanted as _sigquit_wanted
from gort._supported import threads_wanted as _threads_wanted

if _problem := _complaint():
    raise ImportError(_problem)

from gort import (
    atomic,
    boundary,
    chan,
    context,
    errgroup,
    gc,
    labels,
    memory,
    policy,
    runtime,
    singleflight,
    structured,
    sync,
    threads,
    time,
)
from gort._async import (
    from_future,
    wait,
)
from gort._core import (
    Case,
    Chan,
    Cond,
    Goroutine,
    Map,
    Mutex,
    Semaphore,
    current,
    current_context,
    go,
    goexit,
    gomaxprocs,
    goroutines,
    gosched,
    lock_os_thread,
    num_goroutine,
    recv,
    select,
    send,
    sleep,
    spawn,
    stats,
    unlock_os_thread,
)
from gort._core import (
    __version__ as __version__,
)
from gort._deadlocks import (
    deadlocks,
)
from gort._dump import (
    dump,
    dump_on,
)
from gort._exceptions import (
    Cancelled,
    ChanClosed,
    ContextCanceled,
    DeadlineExceeded,
    DeadlockError,
    GoroutineExit,
    RuntimeStopped,
)
from gort._health import Health, HealthLimits, HealthMonitor, health
from gort.barrier import Barrier, BrokenBarrierError, CountDownLatch
from gort.chan import RecvChan, SendChan
from gort.local import Local
from gort.policy import Group, get_policy, gosched_when, set_policy, set_schedstats
from gort.runtime import ExceptHookArgs, excepthook, locked_os_thread, no_preempt, run
from gort.scopes import (
    Child,
    Scope,
    scope,
)
from gort.sync import (
    Once,
    Pool,
    RWMutex,
    WaitGroup,
    once_func,
    once_value,
    once_values,
)
from gort.time import Ticker, Timer, after, after_func, tick

__all__ = [
    "Barrier",
    "BrokenBarrierError",
    "Cancelled",
    "Case",
    "Chan",
    "ChanClosed",
    "Child",
    "Cond",
    "ContextCanceled",
    "CountDownLatch",
    "DeadlineExceeded",
    "DeadlockError",
    "ExceptHookArgs",
    "Goroutine",
    "GoroutineExit",
    "Group",
    "Health",
    "HealthLimits",
    "HealthMonitor",
    "Local",
    "Map",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "RecvChan",
    "RuntimeStopped",
    "Scope",
    "Semaphore",
    "SendChan",
    "Ticker",
    "Timer",
    "WaitGroup",
    "after",
    "after_func",
    "atomic",
    "boundary",
    "chan",
    "context",
    "current",
    "current_context",
    "deadlocks",
    "dump",
    "dump_on",
    "errgroup",
    "excepthook",
    "from_future",
    "gc",
    "get_policy",
    "go",
    "goexit",
    "gomaxprocs",
    "goroutines",
    "gosched",
    "gosched_when",
    "health",
    "labels",
    "lock_os_thread",
    "locked_os_thread",
    "memory",
    "no_preempt",
    "num_goroutine",
    "once_func",
    "once_value",
    "once_values",
    "policy",
    "recv",
    "run",
    "runtime",
    "scope",
    "select",
    "send",
    "set_policy",
    "set_schedstats",
    "singleflight",
    "sleep",
    "spawn",
    "stats",
    "structured",
    "sync",
    "threads",
    "tick",
    "time",
    "unlock_os_thread",
    "wait",
]

if _malloc_wanted():
    memory.install()
if _threads_wanted():
    threads.enable()
if _sigquit_wanted():
    dump_on(3, exits=_sigquit_wanted() == "exit")  # SIGQUIT, without the import of signal
