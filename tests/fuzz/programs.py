"""Random programs: goroutines that spawn, send, select, lock, sleep, cancel, block and fork.

A program is plain data: what it shares, and for each goroutine a list of operations, each a list of
its name and arguments. `["with", kind, which, operations, timeout]` holds a lock meanwhile.
"""

from __future__ import annotations

import random
from typing import Any

Operation = list[Any]
Program = dict[str, Any]

MOST_GOROUTINES = 7
MOST_OPERATIONS = 9
SHORT = 0.0004  # seconds of sleeps and time-outs
PAUSES = ("sleep", "hold", "compute")
#: Weights of operations; a fork costs as much as a hundred others.
WEIGHTS = {
    "send": 20, "recv": 20, "select": 12, "close": 3, "try_send": 4, "try_recv": 4, "yield": 10,
    "with": 12, "acquire": 5, "release": 5, "add": 2, "finish": 3, "wait": 2, "spawn": 6,
    "join": 3, "cancel": 4, "pause": 5, "fork": 0.15,
}  # fmt: skip


class Maker:
    """Makes one program of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = self.random.randint(2, MOST_GOROUTINES)
        self.shared = {
            "chans": [
                self.random.choice((0, 0, 1, 2, 3)) for _ in range(self.random.randint(1, 3))
            ],
            "mutexes": 2,
            "rwmutexes": 1,
            "semaphores": [self.random.randint(1, 3)],
            "groups": 1,
        }
        self.values = iter(range(1, 10**6))

    def program(self) -> Program:
        """All of it; goroutine 0 is the first, the others are spawned by it or by each other."""
        started = self.random.randint(1, self.count)
        bodies = [self.operations(MOST_OPERATIONS, 0) for _ in range(self.count)]
        return {**self.shared, "started": started, "goroutines": bodies}

    def operations(self, most: int, depth: int) -> list[Operation]:
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        chosen = self.random.choices(names, weights, k=self.random.randint(1, most))
        return [self.operation(name, depth) for name in chosen]

    def channel(self) -> int:
        return self.random.randrange(len(self.shared["chans"]))

    def timeout(self) -> float | None:
        return SHORT if self.random.random() < 0.2 else None

    def case(self) -> list[Any]:
        chan = self.channel() if self.random.random() < 0.95 else None  # a nil channel
        if self.random.random() < 0.5:
            return ["send", chan, next(self.values)]
        return ["recv", chan]

    def operation(self, name: str, depth: int) -> Operation:
        """One operation with arguments; those that do not fit become a yield."""
        pick = self.random
        match name:
            case "send":
                return [name, self.channel(), next(self.values), self.timeout()]
            case "recv":
                return [name, self.channel(), self.timeout()]
            case "try_send":
                return [name, self.channel(), next(self.values)]
            case "try_recv" | "close":
                return [name, self.channel()]
            case "select":
                cases = [self.case() for _ in range(pick.randint(1, 3))]
                return [name, cases, pick.random() < 0.2, self.timeout()]
            case "with" if depth < 2:
                kind = pick.choice(("mutex", "read", "read", "write"))
                which = pick.randrange(2) if kind == "mutex" else 0
                return [name, kind, which, self.operations(3, depth + 1), self.timeout()]
            case "acquire":
                return [name, 0, pick.randint(1, self.shared["semaphores"][0]), self.timeout()]
            case "release":
                return [name, 0, pick.randint(1, self.shared["semaphores"][0])]
            case "wait":
                return [name, 0, self.timeout()]
            case "add" | "finish":
                return [name, 0]
            case "join" | "cancel":
                return [name, pick.randrange(self.count)]
            case "pause":
                return [pick.choice(PAUSES), SHORT]
            case "spawn" | "yield" | "fork":
                return [name]
        return ["yield"]


def make(seed: int) -> Program:
    """The program of a seed."""
    return Maker(seed).program()


def smaller(program: Program) -> list[Program]:
    """Programs with something left out, for finding the least that fails."""
    found = []
    bodies = program["goroutines"]
    for i, body in enumerate(bodies):
        if not body:
            continue
        for j in range(len(body)):
            less = body[:j] + body[j + 1 :]
            found.append({**program, "goroutines": [*bodies[:i], less, *bodies[i + 1 :]]})
            if body[j][0] == "with":
                opened = body[:j] + body[j][3] + body[j + 1 :]
                found.append({**program, "goroutines": [*bodies[:i], opened, *bodies[i + 1 :]]})
        found.insert(0, {**program, "goroutines": [*bodies[:i], [], *bodies[i + 1 :]]})
    return found
