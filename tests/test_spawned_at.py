"""Who started a goroutine is always known: its object says it, and an exception that ended it."""

from __future__ import annotations

import re
import sys
import traceback

import gort
import pytest
from children import child
from waiting import LIMIT


def line_of(text):
    """The number of the one line of this file that has it."""
    with open(__file__, encoding="utf-8") as lines:
        numbers = [n for n, line in enumerate(lines, 1) if line.rstrip().endswith(text)]
    assert len(numbers) == 1, numbers
    return numbers[0]


def fails():
    raise ValueError("no")


def starts():
    return gort.go(fails)  # here


def notes_of(exc):
    return getattr(exc, "__notes__", [])


def test_created_says_function_file_and_line():
    g = starts()
    assert g.created == f"starts at {__file__}:{line_of('# here')}"
    with pytest.raises(ValueError):
        g.join(timeout=LIMIT)
    assert g.created == f"starts at {__file__}:{line_of('# here')}"


def test_parent_is_the_id_of_who_started_it():
    def middle():
        inner = gort.go(lambda: None)
        inner.join()
        return inner.parent, gort.current().id

    g = gort.go(middle)
    parent, own = g.join(timeout=LIMIT)
    assert parent == own == g.id
    assert g.parent == 1


def test_parent_of_who_a_plain_thread_started_is_none():
    code = """
import _thread, gort
made = gort.Chan()
_thread.start_new_thread(lambda: made.send(gort.go(print, end="")), ())
g = made.recv()
g.join(timeout=20)
print(g.parent, g.created.split(" at ")[0])
"""
    assert child(code).stdout == "None <lambda>\n"


@pytest.mark.parametrize(
    "start",
    [
        lambda: gort.WaitGroup().go(fails),
        lambda: gort.spawn(fails, name="named"),
        lambda: [gort.go(fails) for _ in range(1)][0],
        lambda: next(gort.go(fails) for _ in range(1)),
        lambda: max([0], key=lambda _: made.append(gort.go(fails)) or 0) or made.pop(),
    ],
)
def test_frames_of_gort_are_passed_over(start):
    g = start()
    assert re.search(rf"<lambda>.* at {re.escape(__file__)}:\d+$", g.created), g.created
    with pytest.raises(ValueError):
        g.join(timeout=LIMIT)


made: list[gort.Goroutine[None]] = []


def test_constructor_that_starts_one():
    class Starts:
        def __init__(self):
            self.g = gort.go(fails)  # in a constructor

    g = Starts().g
    assert g.created.endswith(f"Starts.__init__ at {__file__}:{line_of('# in a constructor')}")
    with pytest.raises(ValueError):
        g.join(timeout=LIMIT)


def test_exception_says_where_its_goroutine_was_spawned():
    g = starts()
    for _ in range(2):
        with pytest.raises(ValueError) as caught:
            g.join(timeout=LIMIT)
        place = f'  File "{__file__}", line {line_of("# here")}, in starts'
        assert notes_of(caught.value) == [f"goroutine {g.id} spawned at\n{place}"]
    assert place in "".join(traceback.format_exception(caught.value))


def test_exception_that_goes_on_has_a_line_for_each_goroutine_it_ended():
    def middle():
        gort.go(fails).join()

    g = gort.spawn(middle, name="middle")
    with pytest.raises(ValueError) as caught:
        g.join(timeout=LIMIT)
    inner, outer = notes_of(caught.value)
    assert re.search(r"goroutine \d+ spawned at\n.*in .*middle$", inner)
    assert outer.startswith(f"goroutine {g.id} (middle) spawned at\n")
    assert outer.endswith("in test_exception_that_goes_on_has_a_line_for_each_goroutine_it_ended")


def test_report_of_who_nobody_joined_has_it():
    code = """
import gort
told = gort.Chan()
def hook(args):
    gort.runtime.excepthook(args)
    told.close()
gort.excepthook = hook
def fails(): 1 / 0
def main():
    gort.go(fails)
    told.recv_ok()
gort.run(main)
"""
    text = child(code).stderr
    assert re.search(
        r'ZeroDivisionError: .*\ngoroutine \d+ spawned at\n  File "<string>", line 10, in main\n',
        text,
    ), text


def test_exception_that_refuses_notes_comes_out_as_it_is():
    class Stubborn(Exception):
        def add_note(self, note):
            raise RuntimeError(note)

    def fails():
        raise Stubborn

    with pytest.raises(Stubborn):
        gort.go(fails).join(timeout=LIMIT)


def test_ends_that_are_no_failures_have_none():
    g = gort.go(gort.goexit)
    assert g.join(timeout=LIMIT) is None
    parked = gort.go(gort.Chan().recv)
    while parked.status == "runnable":
        gort.gosched()
    assert parked.cancel()
    with pytest.raises(gort.Cancelled) as caught:
        parked.join(timeout=LIMIT)
    assert notes_of(caught.value) == []


def test_code_is_let_go_with_the_goroutine():
    namespace = {"gort": gort}
    exec("def start(): return gort.go(int)", namespace)
    code = namespace["start"].__code__
    before = sys.getrefcount(code)
    gs = [namespace["start"]() for _ in range(100)]
    for g in gs:
        assert g.join(timeout=LIMIT) == 0
    del g, gs
    assert sys.getrefcount(code) == before
