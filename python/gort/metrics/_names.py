"""Which metrics there are: Go's names where the meaning is Go's, ours below /gort/."""

from __future__ import annotations

from gort import _core
from gort._typing import TYPE_CHECKING
from gort.metrics._model import Description, Float64Histogram, Kind
from gort.metrics._sources import (
    COLLECTOR,
    INTERPRETER_LOCK,
    READY,
    STOPPED,
    WAKE_UP,
    Reading,
    histogram,
)
from gort.policy import _groups

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FIXED", "Metric", "measured_groups", "measured_priorities"]

_LEAST_PRIORITY = -20
PRIORITY = "/gort/sched/latencies/priority/"
GROUP = "/gort/sched/latencies/group/"


class Metric:
    """A metric, and how it is read."""

    __slots__ = ("description", "read")

    def __init__(
        self,
        description: Description,
        read: Callable[[Reading], int | float | Float64Histogram],
    ) -> None:
        """Describe it."""
        self.description, self.read = description, read


def _metrics() -> list[Metric]:
    """All whose names are fixed."""
    found: list[Metric] = []

    def add(
        name: str, text: str, kind: Kind, grows: bool, read: Callable[[Reading], int | float]
    ) -> None:
        found.append(Metric(Description(name, text, kind, grows), read))

    def count(name: str, text: str, read: Callable[[Reading], int]) -> None:
        add(name, text, Kind.UINT64, True, read)

    def gauge(name: str, text: str, read: Callable[[Reading], int]) -> None:
        add(name, text, Kind.UINT64, False, read)

    def seconds(name: str, text: str, read: Callable[[Reading], float]) -> None:
        add(name, text, Kind.FLOAT64, True, read)

    def times(name: str, text: str, number: int) -> None:
        def read(_: Reading) -> Float64Histogram:
            return histogram(_core._latencies(number))

        found.append(Metric(Description(name, text, Kind.FLOAT64_HISTOGRAM, True), read))

    _add_scheduler(count, gauge, times)
    _add_cpu(seconds)
    _add_collector(count, gauge, times)
    _add_memory(count, gauge)
    return sorted(found, key=lambda metric: metric.description.name)


def _add_scheduler(
    count: Callable[[str, str, Callable[[Reading], int]], None],
    gauge: Callable[[str, str, Callable[[Reading], int]], None],
    times: Callable[[str, str, int], None],
) -> None:
    """Goroutines, Ps and Ms."""
    every = "Looks at each goroutine."
    for what, key, text in (
        ("not-in-go", "outside", "in a call that lasts, whose processor others have"),
        ("runnable", "runnable", "ready to run, but not running"),
        ("running", "running", "running"),
        ("waiting", "waiting", "waiting for something"),
    ):
        gauge(
            f"/sched/goroutines/{what}:goroutines",
            f"Goroutines {text}. {every}",
            lambda r, key=key: r.states[key],  # type: ignore[misc]
        )
    simple = (
        (gauge, "/sched/goroutines:goroutines", "goroutines", "Goroutines there are."),
        (count, "/sched/goroutines-created:goroutines", "created", "Goroutines ever started."),
        (gauge, "/sched/gomaxprocs:threads", "processors", "GOMAXPROCS."),
        (gauge, "/gort/sched/idle:threads", "idle_machines", "Threads that sleep."),
        (gauge, "/gort/sched/timers:timers", "timers", "Timers that are set."),
        (count, "/gort/sched/steals:events", "steals", "Batches taken from other processors."),
        (count, "/gort/sched/hand-offs:events", "hand_offs", "Processors taken from calls."),
        (count, "/gort/sched/local-pops:goroutines", "local_pops", "Taken from local queues."),
        (count, "/gort/sched/global-pops:goroutines", "global_pops", "From the global one."),
        (count, "/gort/sched/spins:events", "spins", "Threads that began to look for work."),
        (count, "/gort/sched/preemptions:events", "preemptions", "Ends of used up slices."),
    )
    for add, name, key, text in simple:
        add(name, text, lambda r, key=key: r.scheduler[key])  # type: ignore[misc]
    gauge(
        "/sched/threads/total:threads",
        "Threads of the runtime.",
        lambda r: r.scheduler["machines"] + 1,
    )
    times("/sched/latencies:seconds", "From being ready to running. One of 53 is timed.", READY)
    times("/gort/sched/wakeups:seconds", "The same of those only that were woken.", WAKE_UP)
    times(
        "/gort/sched/interpreter-lock/waits:seconds",
        "What threads of the runtime waited for the GIL where somebody else had it.",
        INTERPRETER_LOCK,
    )
    times(
        "/sched/pauses/total/other:seconds",
        "How long looks at everything (leaks, profiles of goroutines) let nothing else run.",
        STOPPED,
    )


def _add_cpu(seconds: Callable[[str, str, Callable[[Reading], float]], None]) -> None:
    """Where the CPU's time went, and the locks'."""
    seconds("/cpu/classes/gc/pause:cpu-seconds", "In passes of the collector.", Reading.cpu_gc)
    seconds("/cpu/classes/gc/total:cpu-seconds", "In passes of the collector.", Reading.cpu_gc)
    seconds("/cpu/classes/idle:cpu-seconds", "Of the total, what nobody used.", Reading.cpu_idle)
    seconds(
        "/cpu/classes/total:cpu-seconds",
        "GOMAXPROCS over the time since the first goroutine.",
        Reading.cpu_total,
    )
    seconds("/cpu/classes/user:cpu-seconds", "Of the total, for all the rest.", Reading.cpu_user)
    seconds(
        "/sync/mutex/wait/total:seconds",
        "What goroutines and threads waited for Mutex and RWMutex; one wait of 32 is timed.",
        lambda r: r.totals["lock_wait_ns"] / 1e9,
    )


def _add_collector(
    count: Callable[[str, str, Callable[[Reading], int]], None],
    gauge: Callable[[str, str, Callable[[Reading], int]], None],
    times: Callable[[str, str, int], None],
) -> None:
    """CPython's collector."""
    for which in ("young", "middle", "full"):
        count(
            f"/gort/gc/cycles/{which}:gc-cycles",
            f"Passes of the collector over the {which} generation, by which CPython has it.",
            lambda r, which=which: r.passes[which],  # type: ignore[misc]
        )
    count("/gc/cycles/total:gc-cycles", "Passes of the collector.", Reading.passes_in_all)
    for name, key, text in (
        ("collected:objects", "collected", "Objects that passes found to be garbage."),
        ("uncollectable:objects", "uncollectable", "Those that nothing could be done about."),
        ("unreachable:goroutines", "unreachable", "Goroutines that collect_unreachable ended."),
    ):
        count(f"/gort/gc/{name}", text, lambda r, key=key: r.passes[key])  # type: ignore[misc]
    gauge("/gc/gogc:percent", "gort.gc.tune's percent; 2^64-1: off.", lambda r: r.percent())
    gauge("/gc/gomemlimit:bytes", "Its limit; 2^63-1: none.", lambda r: r.memory_limit())
    pauses = "How long each pass of the collector was, with what its finalizers waited for."
    times("/gc/pauses:seconds", pauses, COLLECTOR)
    times("/sched/pauses/total/gc:seconds", pauses, COLLECTOR)


def _add_memory(
    count: Callable[[str, str, Callable[[Reading], int]], None],
    gauge: Callable[[str, str, Callable[[Reading], int]], None],
) -> None:
    """The heap, which has Python's objects in it after gort.memory.install()."""
    heap = "in gort's heaps: the runtime's, and Python's objects where it serves those"
    for what in ("allocs", "frees"):
        for unit in ("bytes", "objects"):
            count(
                f"/gc/heap/{what}:{unit}",
                f"{what.capitalize()} {heap}, in {unit}.",
                lambda r, name=f"{what}_{unit}": r.heap(name),  # type: ignore[misc]
            )
    gauge("/gc/heap/objects:objects", f"Objects {heap}.", Reading.objects)
    for name, text in (
        ("free", "Free pages that the system has not got back"),
        ("objects", "Objects"),
        ("released", "Address space whose pages the system has got back"),
        ("unused", "Parts without objects of pages with some"),
    ):
        gauge(
            f"/memory/classes/heap/{name}:bytes",
            f"{text}, {heap}.",
            lambda r, name=f"{name}_bytes": r.heap(name),  # type: ignore[misc]
        )
    gauge(
        "/memory/classes/metadata/other:bytes",
        "What the runtime's heap keeps about itself.",
        lambda r: r.memory["metadata_bytes"],
    )
    gauge("/memory/classes/total:bytes", f"All {heap}, and its metadata.", Reading.mapped)
    gauge(
        "/gort/memory/goroutines:bytes",
        "What gort.memory.set_limit counts.",
        lambda r: r.memory["goroutine_bytes"],
    )
    gauge(
        "/gort/memory/stacks/saved:stacks",
        "Parked goroutines that have given back their stacks.",
        lambda r: r.memory["stacks_saved"],
    )
    count(
        "/gort/memory/pressures:events",
        "How often memory was given back because the system was short of it.",
        lambda r: r.memory["pressures"],
    )
    gauge(
        "/gort/process/resident:bytes",
        "Resident memory of the process.",
        lambda _: _core._resident_bytes(),
    )
    gauge(
        "/gort/process/open:descriptors",
        "Open descriptors of the process.",
        lambda r: r.descriptors(),
    )


FIXED: dict[str, Metric] = {metric.description.name: metric for metric in _metrics()}


def measured_priorities() -> dict[int, Float64Histogram]:
    """What was ready waited, by priority, as far as some ran while policies were in use."""
    found = {}
    for priority in range(_LEAST_PRIORITY, -_LEAST_PRIORITY + 1):
        raw = _core._latencies_of(priority)
        if raw is not None:
            found[priority] = histogram(raw)
    return found


def measured_groups() -> dict[str, Float64Histogram]:
    """The same by the names of the groups there are; those of one name count together."""
    found: dict[str, Float64Histogram] = {}
    for group in list(_groups()):
        raw = _core._latencies_of(group)
        if raw is not None:
            new = histogram(raw)
            old = found.get(group.name, new._replace(counts=(0,) * len(new.counts), total=0.0))
            counts = tuple(a + b for a, b in zip(old.counts, new.counts, strict=True))
            found[group.name] = new._replace(counts=counts, total=old.total + new.total)
    return found
