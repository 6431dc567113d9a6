"""Memory of the runtime: what it is used for, and giving back what is not.

A goroutine that stays parked for a second or two gives the memory of its stack back by itself: the
part in use, some hundred bytes, is kept elsewhere until it runs again. `trim` does the same at
once; GORT_SHRINK sets how long a second is, in milliseconds, and 0 that it is never.
"""

from __future__ import annotations

from gort._core import _memory_release, _memory_stats, _memory_trim_step, gosched

__all__ = ["stats", "trim"]


def trim() -> int:
    """Have all parked goroutines give back their stacks' memory, and the heap what it has free.

    Lets others run in between, a fraction of a millisecond apart. A goroutine keeps its stack while
    it waits in a call that another library answers, holds its OS thread, or is called back from
    foreign C code; whoever waits in a gort operation gives it back.

    Returns:
        How many stacks were saved by this call.

    Example:
        >>> import gort
        >>> gort.memory.trim()
        0
    """
    before = _memory_stats()["stack_saves"]
    slab = 0
    while _memory_trim_step(slab):
        slab += 1
        gosched()
    _memory_release()
    return _memory_stats()["stack_saves"] - before


def stats() -> dict[str, int]:
    """Return what the runtime's memory is used for; sizes in bytes. Never blocks for long.

    `stacks_saved` goroutines have given back their stacks, of which `stacks_saved_bytes` are kept;
    `stack_saves` and `stack_restores` count both ways. `heap_` names are those of Go's
    runtime/metrics for the heap that the runtime's own objects lie in.

    Example:
        >>> import gort
        >>> gort.memory.stats()["stacks_saved"]
        0
    """
    return _memory_stats()
