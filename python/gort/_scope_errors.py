"""What a scope raises at its end, and what it says of children that do not end.

An error is "made by the end" of a scope if the scope was ending when it came and it says no more
than that: Cancelled, ContextCanceled, GoroutineExit; DeadlineExceeded where the scope's deadline
has passed; the cause of a context above, which comes out where that was cancelled.
"""

from __future__ import annotations

import sys

from gort import _core
from gort._exceptions import Cancelled, ContextCanceled, DeadlineExceeded, GoroutineExit
from gort._typing import TYPE_CHECKING
from gort.runtime import _who, _write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    from gort.scopes import Child, Scope

__all__ = ["ended_from_outside", "gather", "is_made_by_end", "raise_all", "tell_stuck"]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the exceptions in a group, however nested, in order."""
    stack = [error]
    while stack:
        last = stack.pop()
        if isinstance(last, BaseExceptionGroup):
            stack.extend(reversed(last.exceptions))
        else:
            yield last


def _is_made(scope: Scope, leaf: BaseException) -> bool:
    """Whether the end of the scope, which has begun, has made an exception."""
    if isinstance(leaf, GoroutineExit | Cancelled | ContextCanceled):
        return True
    if type(leaf) is DeadlineExceeded:
        return type(scope._context.err()) is DeadlineExceeded
    return not scope._is_own and leaf is scope._context.cause()


def is_made_by_end(scope: Scope, error: BaseException) -> bool:
    """Whether the end of the scope has made all of an error."""
    if not scope._ending and scope._context.err() is None:
        return False
    if not isinstance(error, BaseExceptionGroup):
        return _is_made(scope, error)
    return all(_is_made(scope, leaf) for leaf in _leaves(error))


def ended_from_outside(scope: Scope) -> BaseException | None:
    """Give the err() of the context if that has ended what was going on, and not the scope."""
    if not scope._cut or scope._is_own:
        return None
    err, cause = scope._context.err(), scope._context.cause()
    if err is not None and cause is not err and err.__cause__ is None:
        err.__cause__ = cause
    return err


def gather(
    scope: Scope, first: BaseException | None, others: list[BaseException | None]
) -> list[BaseException]:
    """Give what a scope is to raise: flat, each once, without what its end has made.

    Args:
        scope: it has ended its children.
        first: what went wrong first, which its end has not made.
        others: what else went wrong, of which a part may be made by the end.
    """
    found: dict[int, BaseException] = {}
    for leaf in () if first is None else _leaves(first):
        found[id(leaf)] = leaf
    for error in others:
        for leaf in () if error is None else _leaves(error):
            is_part = isinstance(error, BaseExceptionGroup)
            if not isinstance(leaf, GoroutineExit) and not (is_part and _is_made(scope, leaf)):
                found[id(leaf)] = leaf
    return list(found.values())


def raise_all(name: str | None, errors: list[BaseException]) -> NoReturn:
    """Raise a group of all; KeyboardInterrupt or SystemExit by itself, with the rest as cause."""
    text = "errors in a scope" if name is None else f"errors in scope {name!r}"
    for error in errors:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            rest = [other for other in errors if other is not error]
            if rest:
                raise error from BaseExceptionGroup(text, rest)
            raise error
    try:
        group = BaseExceptionGroup(text, errors)
    except MemoryError:
        raise errors[0] from None  # rather this one than none
    raise group from None


def _described(child: Child[Any]) -> str:
    """Who a child is, and where it is."""
    g = child.goroutine
    if g is None or g.done:
        return ""
    import traceback

    where = f", started by {g.created}" if g.created else ""
    lines = [f"{_who(g)}, {child.name} [{g.status}]{where}\n"]
    frame = sys._current_frames().get(_core._ident(g) or 0)
    if frame is not None:
        lines += traceback.format_stack(frame)
    return "".join(lines)


def tell_stuck(
    scope: Scope, hook: Callable[[list[Child[Any]], str], object] | None, seconds: float
) -> None:
    """Say which children have not ended although they were cancelled. Never raises an Exception."""
    try:
        stuck = [child for child in tuple(scope._live) if not child.done]
        parts = [text for child in stuck if (text := _described(child))]
        who = "a scope" if scope.name is None else f"scope {scope.name!r}"
        many = f"{len(parts)} children have" if len(parts) != 1 else "1 child has"
        head = f"gort: {who} waits: {many} not ended {seconds:g} s after being cancelled\n"
        text = head + "".join(parts)
        if not parts:
            return
        if hook is not None:
            hook(stuck, text)
        elif sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (OSError, ValueError):
        pass  # stderr is closed: there is nowhere left to complain
    except Exception as failure:  # noqa: BLE001 - the scope goes on waiting
        _write("Exception in the report of a scope that waits:", failure)
