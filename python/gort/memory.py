"""Memory of the runtime: what it is used for, and giving back what is not.

A goroutine that stays parked for a second or two gives the memory of its stack back by itself: the
part in use, some hundred bytes, is kept elsewhere until it runs again. `trim` does the same at
once; GORT_SHRINK sets how long a second is, in milliseconds, and 0 that it is never. When Linux
says that memory is short (PSI, or the control group's limits) all who are parked do it at once;
`gort doctor` tells where that is heard from.

`set_limit` bounds what goroutines have in all: the next one is refused, or waits for room.
`TRACEMALLOC_DOMAIN` is where `tracemalloc` shows goroutines and channels by source line.
"""

from __future__ import annotations

import operator

from gort._core import (
    _TRACEMALLOC_DOMAIN,
    _memory_install,
    _memory_release,
    _memory_set_limit,
    _memory_stats,
    _memory_trim_step,
    gosched,
)

__all__ = ["TRACEMALLOC_DOMAIN", "install", "set_limit", "stats", "trim"]

_MOST = (1 << 62) - 1

#: The domain of `tracemalloc` in which the runtime's memory is found by the line that asked for it:
#: `snapshot.filter_traces([tracemalloc.DomainFilter(True, gort.memory.TRACEMALLOC_DOMAIN)])`. A
#: goroutine counts from its `go` to its end with what it takes at least: its descriptor, what it
#: runs on and one page of stack. A channel counts with its buffer, for which there is memory at
#: once while tracemalloc traces (for 65,536 values at most).
TRACEMALLOC_DOMAIN: int = _TRACEMALLOC_DOMAIN


def install() -> bool:
    """Serve the memory of Python's own objects from gort's allocator, for the rest of the process.

    All of CPython's domains (raw, mem, obj); what was allocated before stays where it is and is
    freed there. GORT_MALLOC=1 calls this when gort is imported. Debug hooks (PYTHONMALLOC=debug,
    -X dev) and tracemalloc stay on top, begun before or after. `sys.getallocatedblocks()` counts
    only what came before. Never blocks.

    Returns:
        Whether this call did it; False if it was done before.

    Raises:
        RuntimeError: Another tool watches Python's memory (memray); it must begin after this.
        MemoryError: The system refuses address space; nothing changes.

    Example:
        >>> import gort
        >>> gort.memory.install(), gort.memory.install()  # doctest: +SKIP
        (True, False)
    """
    return _memory_install()


def trim() -> int:
    """Have all parked goroutines give back their stacks' memory, and the heap what it has free.

    Lets others run in between, a fraction of a millisecond apart. A goroutine keeps its stack while
    it waits in a call that another library answers, holds its OS thread, or is called back from
    foreign C code; whoever waits in a gort operation gives it back.

    Returns:
        How many stacks were saved by this call.

    Example:
        >>> import gort
        >>> gort.memory.trim() >= 0
        True
    """
    before = _memory_stats()["stack_saves"]
    slab = 0
    while _memory_trim_step(slab):
        slab += 1
        gosched()
    _memory_release()
    return _memory_stats()["stack_saves"] - before


def set_limit(limit: int | None, *, block: bool = False) -> int | None:
    """Bound the memory of goroutines: starting one that would pass the limit raises or waits.

    What counts is `stats()["goroutine_bytes"]`: what the runtime's heap has in use, descriptors,
    and one page for each stack whose bytes are not kept elsewhere. A goroutine that has not run yet
    counts as if it had. Python's own objects do not count, nor further pages of deep stacks; the
    heap grows by batches, some tens of KiB past the limit.

    Before a start is refused the memory of idle and parked goroutines is taken back. What runs
    already goes on whatever the limit is; functions of timers are started in any case; a thread
    that would be a goroutine is refused as by the system.

    Args:
        limit: Bytes; None for no limit.
        block: What `go` and `spawn` do past the limit: False has them raise MemoryError; True has
            them wait, in order, until others have ended, as a receive would: it can be cancelled,
            and is a deadlock where nobody else runs. A plain thread blocks.

    Returns:
        The limit before, in bytes, or None.

    Raises:
        TypeError: `limit` is no integer.
        ValueError: `limit` is negative.

    Example:
        >>> import gort
        >>> gort.memory.set_limit(1 << 30)
        >>> gort.memory.set_limit(None) == 1 << 30
        True
    """
    bytes_or_none = -1
    if limit is not None:
        bytes_or_none = min(operator.index(limit), _MOST)
        if bytes_or_none < 0:
            raise ValueError(f"set_limit(): a limit must not be negative: {limit}")
    before = _memory_set_limit(bytes_or_none, block)
    return None if before < 0 else before


def stats() -> dict[str, int]:
    """Return what the runtime's memory is used for; sizes in bytes. Never blocks for long.

    `goroutine_bytes` is what `set_limit` counts, `pressures` how often memory was given back
    because the system was short of it. `stacks_saved` goroutines have given back their stacks, of
    which `stacks_saved_bytes` are kept; `stack_saves` and `stack_restores` count both ways.
    `heap_` names are those of Go's runtime/metrics, for the heap that the runtime's own objects lie
    in, and with `install()` Python's, too.

    Example:
        >>> import gort
        >>> stats = gort.memory.stats()
        >>> stats["stack_saves"] - stats["stack_restores"] >= 0
        True
    """
    return _memory_stats()
