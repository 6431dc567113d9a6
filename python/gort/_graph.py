"""Who starts, sends to, waits for and locks whom: recorded while a program runs.

While a `Graph` records, the methods of channels, locks, groups and goroutines, and `go`, `spawn`,
`select`, `recv` and `send` wherever a module has them, are replaced by functions that note what is
done and do it. Before and after they are the compiled ones, so that it costs nothing then.

Goroutines and objects are kept one by one up to some number, then by the line that made them: what
is kept does not grow with the time a program runs.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import partial
from time import perf_counter_ns
from weakref import WeakKeyDictionary, ref

from gort import _core
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

__all__ = ["Actor", "Edge", "Recording", "Thing", "begin", "current", "end"]

#: Goroutines, and objects, that are kept one by one.
_MOST = 400
_PACKAGE = __file__[: -len("_graph.py")]
_GO, _SPAWN, _SELECT, _RECV, _SEND = (
    _core.go, _core.spawn, _core.select, _core.recv, _core.send
)  # fmt: skip
_current_goroutine = _core.current

#: A place in code: a code object and how far it was.
Site = tuple["CodeType", int]


class Actor:
    """A goroutine, or all that were started by a line; the main goroutine, or plain threads."""

    __slots__ = ("count", "function", "kind", "name", "number", "parent", "site")

    def __init__(self, number: int, kind: str, function: str) -> None:
        self.number = number
        self.kind = kind
        self.function = function
        self.name: str | None = None
        self.site: Site | None = None
        self.parent: Actor | None = None
        self.count = 1


class Thing:
    """A channel, lock or group, or all that a line made."""

    __slots__ = ("count", "kind", "number", "site")

    def __init__(self, number: int, kind: str, site: Site | None) -> None:
        self.number = number
        self.kind = kind
        self.site = site
        self.count = 1


class Edge:
    """What an actor did with a thing, or an actor, how often, and how long it waited for that."""

    __slots__ = ("actor", "blocked", "count", "op", "pending", "target", "waited_ns")

    def __init__(self, actor: Actor, op: str, target: Actor | Thing) -> None:
        self.actor = actor
        self.op = op
        self.target = target
        self.count = self.blocked = self.pending = self.waited_ns = 0

    def ended(self, began_ns: int) -> None:
        """Note that it was done after a wait."""
        spent_ns = perf_counter_ns() - began_ns
        self.count += 1  # nothing from here on lets another goroutine run
        self.waited_ns += spent_ns


class Recording:
    """What was seen."""

    def __init__(self) -> None:
        self.main = Actor(0, "main", "main")
        self.actors = [self.main]
        self.things: list[Thing] = []
        #: In the order of what was done first.
        self.edges: dict[tuple[int, str, int, type], Edge] = {}
        self._numbered = self._unseen_count = 0
        self._threads: Actor | None = None
        #: Of goroutines that were not seen to start, once there are many.
        self._shared: Actor | None = None
        self._of_goroutine: WeakKeyDictionary[Any, Actor] = WeakKeyDictionary()
        self._of_object: WeakKeyDictionary[Any, Thing] = WeakKeyDictionary()
        self._of_case: dict[int, tuple[str, ref[Any]]] = {}
        self._actors_of: dict[tuple[object, ...], Actor] = {}
        self._things_of: dict[tuple[object, ...], Thing] = {}

    def actor(self) -> Actor:
        """Give the one that runs."""
        goroutine = _current_goroutine()
        if goroutine is None:
            if threading.get_ident() == threading.main_thread().ident:
                return self.main
            if self._threads is None:
                self._threads = self._new_actor("threads", "plain threads")
            return self._threads
        return self._of_goroutine.get(goroutine) or self._unseen(goroutine)

    def _new_actor(self, kind: str, function: str) -> Actor:
        self._numbered += 1
        found = Actor(self._numbered, kind, function)
        self.actors.append(found)
        return found

    def _unseen(self, goroutine: Any) -> Actor:
        """Give the actor of a goroutine that was not seen to start, or has begun before that."""
        found = self._of_goroutine.get(goroutine)
        if found is None:
            if self._shared is not None:
                found = self._shared
                found.count += 1
            else:
                found = self._new_actor("unseen", "goroutine")
                self._unseen_count += 1
                if self._unseen_count >= _MOST:
                    self._shared = found
            self._of_goroutine[goroutine] = found
        return found

    def started(self, goroutine: Any, function: object, site: Site | None) -> None:
        """Note a goroutine that the one that runs has started."""
        known = self._of_goroutine.get(goroutine)
        key = (_name_of(function), site)
        found = self._actors_of.get(key) if len(self.actors) >= _MOST else None
        if found is not None:
            found.count += 1
            if known is not None and known is not self._shared:
                self._merge(known, found)
        elif known is not None and known is not self._shared:
            found = known
            found.kind = "goroutine"
            self._unseen_count -= 1
        else:
            found = self._new_actor("goroutine", key[0])
        self._actors_of[key] = self._of_goroutine[goroutine] = found
        found.function, found.site = key
        if found.parent is None:
            found.parent = self.actor()
        given = goroutine.name
        found.name = None if given.startswith("goroutine-") else _inner(given)

    def _merge(self, old: Actor, new: Actor) -> None:
        """Have one of a group, that had begun to do something before it was known, be of it."""
        self._unseen_count -= 1
        self.actors.remove(old)
        for key, edge in list(self.edges.items()):
            if edge.actor is old or edge.target is old:
                del self.edges[key]
                actor = new if edge.actor is old else edge.actor
                target = new if edge.target is old else edge.target
                into_key = (actor.number, edge.op, target.number, type(target))
                into = self.edges.setdefault(into_key, Edge(actor, edge.op, target))
                into.count += edge.count
                into.blocked += edge.blocked
                into.waited_ns += edge.waited_ns

    def made(self, thing: object, site: Site | None) -> Thing:
        """Note an object, and where it was made."""
        kind = _kind_of(thing)
        key = (kind, site)
        found = self._things_of.get(key) if len(self.things) >= _MOST else None
        if found is None:
            found = Thing(len(self.things), kind, site)
            self.things.append(found)
            self._things_of[key] = found
        else:
            found.count += 1
        self._of_object[thing] = found
        return found

    def edge(self, op: str, thing: Any) -> Edge:
        """Give what the one that runs does with an object, or a goroutine."""
        target: Actor | Thing
        if isinstance(thing, _core.Goroutine):
            target = self._of_goroutine.get(thing) or self._unseen(thing)
        else:
            target = self._of_object.get(thing) or self.made(thing, None)
        actor = self.actor()
        key = (actor.number, op, target.number, type(target))
        found = self.edges.get(key)
        return found if found is not None else self.edges.setdefault(key, Edge(actor, op, target))

    def note_case(self, case: object, op: str, chan: object) -> None:
        """Keep what a case of a select is about, unless it is nothing; the last ones."""
        if len(self._of_case) > 10_000:
            self._of_case.clear()
        if isinstance(chan, _core.Chan):
            self._of_case[id(case)] = (op, ref(chan))

    def chosen(self, case: object) -> None:
        """Note the case that a select has chosen."""
        op, chan = self._of_case.get(id(case), ("", None))
        found = chan() if chan is not None else None
        if found is not None:
            self.edge(op, found).count += 1


def _kind_of(thing: object) -> str:
    """Name the kind of an object: that of gort, whatever classes are made of it."""
    for base in type(thing).__mro__:
        if base.__module__.partition(".")[0] == "gort":
            return base.__name__
    return type(thing).__name__


def _name_of(function: Any) -> str:
    """Name a function, or what is called like one."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return _inner(str(name))


def _inner(name: str) -> str:
    """Give a name without the functions that it is in."""
    return name.rpartition("<locals>.")[2]


def _site() -> Site | None:
    """Find the line of the program that runs: the innermost that is not in this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return (frame.f_code, frame.f_lasti) if frame is not None else None


_at: Recording | None = None


def current() -> Recording | None:
    """Give what is being recorded."""
    return _at


def _edge(op: str, thing: object) -> Edge | None:
    """Give what to note; None where that cannot be: it must not disturb the program."""
    if _at is None:
        return None
    try:
        return _at.edge(op, thing)
    except Exception:  # noqa: BLE001 - no memory, or an object that cannot be told from others
        return None


def _waiting(op: str, original: Any, tries: Any = None, gives_self: bool = False) -> Any:
    """Replace a method that may wait. `tries`, the same without waiting, tells whether it did."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        edge = _edge(op, self)
        if edge is None:
            return original(self, *args, **kwargs)
        if tries is not None and not args and not kwargs:
            if tries(self):
                edge.count += 1
                return self if gives_self else None
            edge.blocked += 1
        began_ns = perf_counter_ns()
        edge.pending += 1
        try:
            result = original(self, *args, **kwargs)
        finally:
            edge.pending -= 1
        edge.ended(began_ns)
        return result

    return method


def _trying(op: str, original: Any, place: int | None = None) -> Any:
    """Replace a method that says whether it did something, at a place of what it returns."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        edge = _edge(op, self) if (result if place is None else result[place]) else None
        if edge is not None:
            edge.count += 1
        return result

    return method


def _noting(op: str, original: Any) -> Any:
    """Replace a method that never waits; noted before, as it may let another run."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        edge = _edge(op, self)
        if edge is not None:
            edge.count += 1
        return original(self, *args, **kwargs)

    return method


def _making(cls: type) -> Any:
    """Give an `__init__` that notes where an object was made."""
    takes = cls in (_core.Chan, _core.Semaphore, _core.Cond)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if not takes and (args or kwargs):
            raise TypeError(f"{cls.__name__}() takes no arguments")
        if _at is not None:
            try:
                _at.made(self, _site())
            except Exception:  # noqa: BLE001 - as in _edge
                return

    return __init__


def _methods() -> dict[type, dict[str, Any]]:
    """Give what replaces which method."""
    chan, mutex, rw, semaphore, group, cond, goroutine = (
        _core.Chan, _core.Mutex, _core.RWMutex, _core.Semaphore, _core.WaitGroup, _core.Cond,
        _core.Goroutine,
    )  # fmt: skip

    def of(cls: type, how: Callable[..., Any], op: str, name: str, *more: Any) -> None:
        found.setdefault(cls, {})[name] = how(op, cls.__dict__[name], *more)

    found: dict[type, dict[str, Any]] = {}
    of(chan, _waiting, "sends", "send")
    for name in ("recv", "recv_ok", "__next__"):
        of(chan, _waiting, "receives", name)
    of(chan, _trying, "sends", "try_send")
    of(chan, _trying, "receives", "try_recv", 2)
    of(chan, _noting, "closes", "close")
    for cls in (mutex, rw):
        tries = cls.__dict__["try_lock"]
        of(cls, _waiting, "locks", "lock", tries)
        of(cls, _waiting, "locks", "__enter__", tries, True)
        of(cls, _trying, "locks", "try_lock")
        of(cls, _noting, "unlocks", "unlock")
        of(cls, _noting, "unlocks", "__exit__")
    of(rw, _waiting, "reads", "rlock", rw.__dict__["try_rlock"])
    of(rw, _trying, "reads", "try_rlock")
    of(rw, _noting, "unlocks", "runlock")
    tries = semaphore.__dict__["try_acquire"]
    of(semaphore, _waiting, "acquires", "acquire", tries)
    of(semaphore, _waiting, "acquires", "__enter__", tries, True)
    of(semaphore, _trying, "acquires", "try_acquire")
    of(semaphore, _noting, "releases", "release")
    of(semaphore, _noting, "releases", "__exit__")
    of(group, _waiting, "waits for", "wait")
    of(group, _noting, "is done", "done")
    of(cond, _waiting, "waits for", "wait")
    of(cond, _noting, "wakes", "signal")
    of(cond, _noting, "wakes", "broadcast")
    of(goroutine, _waiting, "joins", "join")
    for made in (chan, mutex, rw, semaphore, group, cond):
        found[made]["__init__"] = _making(made)
    return found


def _started(how: Any, function: object, args: Any, kwargs: Any) -> Any:
    """Start a goroutine and note it: as a rule before it runs, as nobody is preempted here."""
    _core._no_preempt(1)
    try:
        goroutine = how(*args, **kwargs)
        if _at is not None:
            with contextlib.suppress(Exception):  # as in _edge
                _at.started(goroutine, function, _site())
    finally:
        _core._no_preempt(-1)
    return goroutine


def _go(*args: Any, **kwargs: Any) -> Any:
    """Do what go does, and note it."""
    return _started(_GO, args[0] if args else None, args, kwargs)


def _spawn(*args: Any, **kwargs: Any) -> Any:
    """Do what spawn does, and note it."""
    return _started(_SPAWN, args[0] if args else kwargs.get("fn"), args, kwargs)


def _recv(*args: Any) -> Any:
    """Do what recv does, and keep what the case is about."""
    case = _RECV(*args)
    if _at is not None:
        _at.note_case(case, "receives", getattr(args[0], "_ch", args[0]))
    return case


def _send(*args: Any) -> Any:
    """Do what send does, and keep what the case is about."""
    case = _SEND(*args)
    if _at is not None:
        _at.note_case(case, "sends", getattr(args[0], "_ch", args[0]))
    return case


def _select(*cases: Any, **kwargs: Any) -> Any:
    """Do what select does, and note which case it was."""
    result = _SELECT(*cases, **kwargs)
    if _at is not None and result[0] >= 0:
        try:
            _at.chosen(cases[result[0]])
        except Exception:  # noqa: BLE001 - as in _edge
            return result
    return result


_FUNCTIONS: list[tuple[Any, Any]] = [
    (_GO, _go), (_SPAWN, _spawn), (_SELECT, _select), (_RECV, _recv), (_SEND, _send),
]  # fmt: skip
_replaced: dict[type, dict[str, Any]] = {}


def _swap(pairs: list[tuple[Any, Any]]) -> None:
    """Replace functions wherever a module has them by name."""
    for module in list(sys.modules.values()):
        space = getattr(module, "__dict__", None)
        if type(space) is not dict or space is globals():
            continue
        for name, value in list(space.items()):
            for old, new in pairs:
                if value is old:
                    space[name] = new


def begin() -> Recording:
    """Begin to record.

    Raises:
        RuntimeError: that is done.
    """
    global _at
    if _at is not None:
        raise RuntimeError("a graph is being recorded")
    _at = found = Recording()
    try:
        for cls, methods in _methods().items():
            kept = _replaced.setdefault(cls, {})
            for name, method in methods.items():
                kept[name] = cls.__dict__.get(name)
                setattr(cls, name, method)
        _swap(_FUNCTIONS)
    except BaseException:
        end()
        raise
    return found


def end() -> None:
    """End it: everything is as it was."""
    global _at
    _at = None
    _swap([(new, old) for old, new in _FUNCTIONS])
    for cls, methods in _replaced.items():
        for name, original in methods.items():
            if original is None:
                if name in cls.__dict__:  # not where beginning has failed
                    delattr(cls, name)
            else:
                setattr(cls, name, original)
    _replaced.clear()
