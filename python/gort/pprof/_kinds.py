"""The profiles there are: goroutine, goroutineleak, threadcreate."""

from __future__ import annotations

import os
from collections import Counter

from gort import leak
from gort._dump import Record, printable, records, text
from gort._typing import TYPE_CHECKING
from gort.pprof._model import (
    Data,
    Frame,
    Frames,
    Sample,
    addresses,
    aligned,
    labels_line,
    stack_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gort.pprof._model import Label, Stack

__all__ = [
    "count_data",
    "count_text",
    "goroutine",
    "goroutine_stacks",
    "goroutineleak",
    "parked_in",
    "threadcreate",
]

#: The function of the runtime that a goroutine is parked in, by the word for it.
_PARKED_IN = {
    "chan receive": "gort.Chan.recv",
    "chan send": "gort.Chan.send",
    "select": "gort.select",
    "select (no cases)": "gort.select",
    "sleep": "gort.sleep",
    "sync.Mutex.Lock": "gort.Mutex.lock",
    "sync.RWMutex.RLock": "gort.RWMutex.rlock",
    "sync.RWMutex.Lock": "gort.RWMutex.lock",
    "sync.WaitGroup.Wait": "gort.WaitGroup.wait",
    "sync.Cond.Wait": "gort.Cond.wait",
    "semacquire": "gort.Semaphore.acquire",
    "join": "gort.Goroutine.join",
    "chan receive (nil chan)": "gort.select",
    "chan send (nil chan)": "gort.select",
    "IO wait": "gort.boundary.io",
    "lock": "gort.boundary.lock",
    "wait for child": "gort.boundary.wait",
    "name resolution": "gort.boundary.getaddrinfo",
    "synctest.Run": "gort.testing.run",
    "synctest.Wait": "gort.testing.wait",
    "goroutine memory": "gort.go",
}
_NATIVE = {
    state: Frame.native(16 * (i + 1), name)
    for i, (state, name) in enumerate(sorted(_PARKED_IN.items(), key=lambda item: item[1]))
}
_COUNT = "count"


def parked_in(word: str) -> Frame | None:
    """Give the function of the runtime that one waits in, by the word for it."""
    return _NATIVE.get(word)


def labels_of(labels: dict[str, str] | None) -> tuple[Label, ...]:
    """Give a goroutine's labels as those of a sample."""
    return tuple([(name, labels[name], "") for name in sorted(labels)]) if labels else ()


def grouped(found: Iterable[Record]) -> list[tuple[Stack, tuple[Label, ...], int]]:
    """Count goroutines that do the same at the same place under the same labels."""
    counts: Counter[tuple[object, ...]] = Counter()
    one: dict[tuple[object, ...], Record] = {}
    for record in found:
        labels = labels_of(record.labels)
        key: tuple[object, ...] = (record.place(), record.state in _NATIVE and record.state, labels)
        counts[key] += 1
        one.setdefault(key, record)
    frames = Frames()
    result = []
    for key, count in counts.items():
        record = one[key]
        leaf = _NATIVE.get(record.state)
        stack = frames.stack(record.frames())
        result.append(((leaf, *stack) if leaf else stack, labels_of(record.labels), count))
    return result


def count_data(name: str, groups: Iterable[tuple[Stack, tuple[Label, ...], int]]) -> Data:
    """Give a profile that counts stacks."""
    samples: list[Sample] = [(stack, (count,), labels) for stack, labels, count in _sorted(groups)]
    return Data(((name, _COUNT),), (name, _COUNT), 1, tuple(samples))


def count_text(name: str, groups: Iterable[tuple[Stack, tuple[Label, ...], int]]) -> str:
    """Give one as text, as Go's debug=1 does."""
    ordered = _sorted(groups)
    lines = [f"{name} profile: total {sum(count for _, _, count in ordered)}"]
    for stack, labels, count in ordered:
        lines.append(f"{count} {addresses(stack)}")
        if labels:
            lines.append(labels_line(labels))
        lines += stack_lines(stack)
    return "\n".join(aligned(lines)) + "\n"


def _sorted(
    groups: Iterable[tuple[Stack, tuple[Label, ...], int]],
) -> list[tuple[Stack, tuple[Label, ...], int]]:
    """Those that are many first."""
    return sorted(groups, key=lambda group: (-group[2], addresses(group[0]), group[1]))


def goroutine() -> list[tuple[Stack, tuple[Label, ...], int]]:
    """Give all goroutines by what they do. Does not park."""
    return grouped(records())


def goroutine_stacks() -> str:
    """Give all goroutines as a dump. Does not park."""
    return text(records())


#: How many the last look found.
_last_leaked = 0


def leaked() -> set[int]:
    """Give the ids of the goroutines that can never run again; see `gort.leak.find`."""
    global _last_leaked
    ids = {found.id for found in leak.find()}
    _last_leaked = len(ids)
    return ids


def leaked_before() -> int:
    """Give how many the last profile found: to look for them takes a pass of the collector."""
    return _last_leaked


def goroutineleak() -> list[tuple[Stack, tuple[Label, ...], int]]:
    """Give the goroutines that can never run again. Collects garbage first."""
    ids = leaked()
    return grouped(record for record in records() if record.id in ids)


def goroutineleak_stacks() -> str:
    """Give all goroutines as a dump that marks those."""
    ids = leaked()
    found = records()
    for record in found:
        record.leaked = record.id in ids
    return text(found)


def threadcreate() -> list[tuple[Stack, tuple[Label, ...], int]]:
    """Give the threads of the process, by name: who made one is not kept (nor is it in Go)."""
    names: Counter[str] = Counter()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
                names[printable(file.read().strip())] += 1
        except OSError:
            continue  # it has ended
    return [
        ((Frame.native(16 * (i + 1), name),), (), names[name])
        for i, name in enumerate(sorted(names))
    ]
