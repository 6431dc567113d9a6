"""The concurrency graph: what it has, that Mermaid and XML take it, that nothing of it stays."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from random import Random

import gort
import gort.trace
import pytest
from gort import _core
from gort._graphdraw import Drawing
from gort.trace import Graph
from waiting import eventually, parked

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "target" / "mermaid"
TEXT = r'(?:[A-Za-z0-9][\w #.]*|"[^"\[\]{}()|<>]*(?:\([^"]*\))?[^"]*")'
BOX = re.compile(rf"    ([A-Z]+)(\[\(|\(\(|\{{\{{|\[|\()({TEXT})(\)\]|\)\)|\}}\}}|\]|\))")
ARROW = re.compile(rf"    ([A-Z]+) (-->|-\.->)(?:\|({TEXT})\|)? ([A-Z]+)")
HOSTILE = 'end]; --> <b>&amp;"%%\n`{x}|(y)#35; \ud800\x00'

DOCUMENT = """
    import gort
    mutex, data = gort.Mutex(), []

    def worker(number):
        with mutex:
            data.append(number)
            gort.sleep(0.01)

    def main():
        {start}

    main()
"""
WAYS = [
    "workers = [gort.go(worker, i) for i in range(2)]; [w.join() for w in workers]",
    "group = gort.WaitGroup(); [group.go(worker, i) for i in range(2)]; group.wait()",
    "[w.join() for w in [gort.spawn(worker, (i,)) for i in range(2)]]",
]
SEVEN = {
    "Main Goroutine", "Spawn Worker #1", "Spawn Worker #2", "Acquire Mutex", "Blocked on Mutex",
    "Release Mutex", "Proceed with Data",
}  # fmt: skip
SIX = {
    ("Main Goroutine", "Spawn Worker #1"), ("Main Goroutine", "Spawn Worker #2"),
    ("Spawn Worker #1", "Acquire Mutex"), ("Spawn Worker #2", "Blocked on Mutex"),
    ("Acquire Mutex", "Release Mutex"), ("Blocked on Mutex", "Proceed with Data"),
}  # fmt: skip


def read(text: str) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Read Mermaid: texts of boxes, and arrows as (from, to, text). Each line is one or the other."""
    lines = text.splitlines()
    assert lines[0] == "graph TD"
    boxes: dict[str, str] = {}
    arrows = []
    for line in lines[1:]:
        if line.startswith("    %% "):
            continue
        box, arrow = BOX.fullmatch(line), ARROW.fullmatch(line)
        if box is not None:
            assert box[2] + box[4] in ("[]", "()", "[()]", "{{}}", "(())")
            assert box[1] not in boxes
            boxes[box[1]] = box[3].strip('"')
        else:
            assert arrow is not None, line
            arrows.append((boxes[arrow[1]], boxes[arrow[4]], (arrow[3] or "").strip('"')))
    return list(boxes.values()), arrows


def pairs(text: str) -> set[tuple[str, str]]:
    """Which texts are joined."""
    return {(start, end) for start, end, _ in read(text)[1]}


def texts_of(picture: str) -> list[str]:
    """Texts of an SVG, which is well-formed and loads nothing."""
    assert "href" not in picture and "<script" not in picture
    root = ET.fromstring(picture)
    return [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}text")]


def run(
    folder: Path, code: str, *options: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program with `gort run --trace=concurrency`."""
    lines = code.splitlines()
    (folder / "app.py").write_text("\n".join(line.removeprefix("    ") for line in lines))
    command = [sys.executable, "-m", "gort", "run", "--trace=concurrency", *options, "app.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, cwd=folder, check=False
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize("start", WAYS)
def test_the_documents_program_gives_its_graph(tmp_path, start):
    done = run(tmp_path, DOCUMENT.format(start=start))
    text = (tmp_path / "concurrency.mmd").read_text()
    boxes, arrows = read(text)
    assert set(boxes) == SEVEN and len(boxes) == 7
    assert pairs(text) == SIX and len(arrows) == 6
    (waited,) = [words for *_, words in arrows if words]
    assert re.fullmatch(r"waited \d+\.\d ms", waited)
    assert set(texts_of((tmp_path / "concurrency.svg").read_text())) == SEVEN | {waited}
    files = ("concurrency.mmd", "concurrency.svg", "concurrency-objects.mmd")
    assert all(str(tmp_path / file) in done.stderr for file in files)
    objects = read((tmp_path / "concurrency-objects.mmd").read_text())[0]
    assert "worker x2 (app.py:11)" in objects and "Mutex mutex" in objects


def test_the_graph_is_written_however_the_program_ends(tmp_path):
    lines = [
        ("raise SystemExit(7)", 7, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("gort.Mutex().lock(); gort.Chan().recv()", 1, "all goroutines are asleep"),
    ]
    for line, status, words in lines:
        out = str(tmp_path / f"out{status}{len(words)}")
        done = run(tmp_path, f"import gort\n{line}", "--trace-out", out, status=status)
        assert words in done.stderr and f"{out}.mmd" in done.stderr
        assert read(Path(out + ".mmd").read_text())[0][0] == "Main Goroutine"
    done = run(tmp_path, "print(1)", "--trace-out", str(tmp_path / "no" / "such"))
    assert done.stdout == "1\n" and "could not be written" in done.stderr


def test_a_forked_child_writes_none(tmp_path):
    run(tmp_path, "import os\nif os.fork() == 0: raise SystemExit\nelse: os.wait()")
    assert "Main Goroutine" in (tmp_path / "concurrency.mmd").read_text()


def square(jobs, results):
    for n in jobs:
        results.send(n * n)


def feed(jobs):
    for n in range(10):
        jobs.send(n)
    jobs.close()


def test_who_sends_to_whom():
    with Graph() as graph:
        jobs, results = gort.Chan(), gort.Chan(8)
        workers = [gort.go(square, jobs, results) for _ in range(4)]
        gort.go(feed, jobs)
        total = sum(results.recv() for _ in range(10))
        for worker in workers:
            worker.join()
    assert total == 285
    _, arrows = read(graph.mermaid("objects"))
    found = {
        (start.split(" ")[0], end.split(" ")[0], words.split(",")[0])
        for start, end, words in arrows
    }
    assert found == {
        ("Main", "square", "spawns x4"), ("Main", "feed", "spawns"), ("feed", "Chan", "sends x10"),
        ("feed", "Chan", "closes"), ("Chan", "square", "received by x10"),
        ("square", "Chan", "sends x10"), ("Chan", "Main", "received by x10"),
        ("Main", "square", "waits for x4"),
    }  # fmt: skip
    steps = pairs(graph.mermaid("steps"))
    assert ("Send on Chan jobs x10", "Close Chan jobs") in steps
    assert ("Main Goroutine", "Receive from Chan results x10") in steps
    assert any(a.startswith("Send on Chan results") and "results x10" in b for a, b in steps)


def test_everything_that_waits_is_in_it():
    with Graph() as graph:
        rw, units, group, chan = gort.RWMutex(), gort.Semaphore(2), gort.WaitGroup(), gort.Chan(1)
        lock = gort.Mutex()
        cond = gort.sync.Cond(lock)

        def waits():
            with lock:
                cond.wait()
            group.done()

        group.add()
        parked(gort.go(waits))
        with rw, units:
            pass
        with rw.reading():
            assert not rw.try_lock() and rw.try_rlock()
            rw.runlock()
        with lock:
            cond.signal()
        assert gort.select(gort.send(chan, 1), gort.recv(gort.Chan()))[0] == 0
        assert gort.select(gort.recv(chan.receiver()), default=True)[0] == 0
        assert gort.select(gort.recv(chan), default=True)[0] == -1
        assert chan.try_send(1) and not chan.try_send(2) and chan.try_recv() == (1, True, True)
        group.wait()
        assert units.try_acquire(2)
        with pytest.raises(TimeoutError):
            units.acquire(timeout=0)
    words = {w.split(",")[0] for *_, w in read(graph.mermaid("objects"))[1]}
    assert words == {
        "spawns", "locks", "unlocks", "unlocks x3", "reads x2", "acquires x2",
        "releases", "sends x2", "received by x2", "waits for", "is done", "wakes",
    }  # fmt: skip


def test_who_waits_still_is_shown_as_blocked():
    with Graph() as graph:
        mutex = gort.Mutex()
        mutex.lock()

        def later():
            mutex.lock()

        waits = gort.go(later)
        parked(waits)
        boxes, _ = read(graph.mermaid())
        assert "Blocked on Mutex" in boxes and "Proceed with Data" not in boxes
        assert read(gort.trace.mermaid())[0] == boxes
        objects = read(gort.trace.mermaid("objects"))[1]
        assert any(words.endswith("1 waiting") for *_, words in objects)
        mutex.unlock()
        waits.join()
    assert "Proceed with Data" in read(graph.mermaid())[0]


def test_nothing_of_it_stays():
    before = {
        (cls, name): cls.__dict__.get(name)
        for cls in (_core.Chan, _core.Mutex, _core.RWMutex, _core.WaitGroup, _core.Semaphore)
        for name in (*cls.__dict__, "__init__")
    }
    names = ("go", "spawn", "select", "recv", "send")
    functions = {name: getattr(gort, name) for name in names}
    graph = Graph()
    graph.start()
    assert gort.go is not functions["go"] and gort.sync.spawn is not functions["spawn"]
    with pytest.raises(RuntimeError, match="a graph is being recorded"):
        Graph().start()
    Graph().stop()  # another one: nothing to end
    from_within = gort.go
    graph.stop()
    graph.stop()
    assert {name: getattr(gort, name) for name in names} == functions
    assert gort.sync.spawn is functions["spawn"]
    assert {key: key[0].__dict__.get(key[1]) for key in before} == before
    assert from_within(int).join() == 0
    assert list(iter([1])) == [1]
    chan = gort.Chan(1)
    chan.send(1)
    chan.close()
    assert list(chan) == [1]
    with pytest.raises(TypeError):
        gort.Mutex(1)


def test_errors_are_those_of_always():
    with Graph():
        chan = gort.Chan(1)
        chan.close()
        for wrong in (lambda: chan.send(1), chan.recv, chan.close):
            with pytest.raises(gort.ChanClosed):
                wrong()
        assert chan.recv_ok() == (None, False) and list(chan) == []
        with pytest.raises(RuntimeError, match="unlock of unlocked mutex"):
            gort.Mutex().unlock()
        for mistake in (lambda: gort.Mutex(1), lambda: gort.Chan("x"), lambda: gort.go(1), gort.go):
            with pytest.raises(TypeError):
                mistake()
        with pytest.raises(ValueError):
            gort.Semaphore(-1)
        with pytest.raises(TimeoutError):
            gort.Chan().recv(timeout=0)
    with pytest.raises(ValueError, match="view must be"):
        Graph().mermaid("other")


def test_what_is_kept_does_not_grow_and_too_much_is_summed_up():
    with Graph() as graph:
        for _ in range(3000):
            chan = gort.Chan(1)
            gort.go(chan.send, 1).join()
            chan.recv()
        assert len(graph._at.actors) < 1000 and len(graph._at.things) < 1000
        assert len(graph._at._of_object) < 100
        eventually(lambda: len(graph._at._of_goroutine) < 100)
    boxes, arrows = read(graph.mermaid())
    assert len(boxes) == 3 and len(arrows) <= 4
    assert any("x3000" in box for box in boxes)


def test_a_goroutine_may_run_before_it_is_known():
    unseen = gort.go  # not replaced: it is not a module that has this name
    with Graph() as graph:
        chan = gort.Chan(1000)
        for i in range(700):
            g = unseen(chan.try_send, 1)
            g.join()
            if i < 600:
                graph._at.started(g, feed, None)
    boxes, arrows = read(graph.mermaid("objects"))
    assert set(boxes) == {"Main Goroutine", "feed x600", "goroutine x100", "Chan chan"}
    assert set(arrows) >= {
        ("Main Goroutine", "feed x600", "spawns x600"), ("feed x600", "Chan chan", "sends x600"),
        ("goroutine x100", "Chan chan", "sends x100"),
    }  # fmt: skip
    waits = [(a, b) for a, b, words in arrows if words.startswith("waits for")]
    assert sorted(waits) == [("Main Goroutine", "feed x600"), ("Main Goroutine", "goroutine x100")]


@pytest.mark.parametrize("seed", range(12))
def test_words_of_a_picture_stand_within_it_and_on_nothing_else(seed):
    random = Random(seed)
    drawing = Drawing()
    for i in range(random.randrange(2, 12)):
        drawing.add(f"box {'wide ' * random.randrange(4)}{i}")
        for _ in range(random.randrange(4)):
            words = f"waits for x{i}" * random.randrange(3)
            drawing.join(random.randrange(i + 1), i, words, dotted=random.random() < 0.3)
            drawing.join(i, random.randrange(i + 1), words)
    root = ET.fromstring(drawing.svg())
    areas = []  # left, top, right, bottom
    for box in root.findall("{*}rect")[1:]:
        x, y, wide, high = (float(box.get(name)) for name in ("x", "y", "width", "height"))
        areas.append((x, y, x + wide, y + high))
    for text in root.findall("{*}text[@font-size]"):
        half, x, y = len(text.text) * 3, float(text.get("x")), float(text.get("y"))
        areas.append((x - half, y - 9, x + half, y + 2))
    least, top, wide, high = map(float, root.get("viewBox").split())
    for a, b, c, d in areas:
        assert least <= a and top <= b and c <= least + wide and d <= top + high
    for one, other in combinations(areas, 2):
        apart = one[2] <= other[0] or other[2] <= one[0]
        assert apart or one[3] <= other[1] or other[3] <= one[1], (one, other)


def test_more_than_mermaid_draws_is_left_out_and_said():
    drawing = Drawing()
    for i in range(900):
        drawing.add(f"box {i}")
        drawing.join(0, i, f"x{i}", weight=i)
    text = drawing.mermaid()
    _, arrows = read(text)
    assert len(arrows) <= 500 and len(text) < 50_000
    assert "more arrows are left out" in text
    assert ("box 0", "box 899", "x899") in arrows and ("box 0", "box 1", "x1") not in arrows
    assert "400 more arrows" in texts_of(drawing.svg())
    long = Drawing()
    for i in range(500):
        long.add(f"({'y' * 100}{i}")
        long.join(max(i - 1, 0), i, "z" * 100, weight=i)
    assert len(long.mermaid()) < 50_000


def hostile() -> Drawing:
    """A drawing with texts that mean something to Mermaid and XML, arrows up, level and to itself."""
    drawing = Drawing()
    for shape in ("box", "round", "channel", "lock", "group"):
        drawing.add(HOSTILE + shape, shape)
    for text in ("end", "graph", "Spend", "o", "x"):
        drawing.add(text)
    for start, end in [(0, 1), (1, 2), (2, 0), (3, 3), (0, 4), (4, 1), (1, 4), (0, 9)]:
        drawing.join(start, end, HOSTILE, dotted=start == 1)
    return drawing


def test_texts_stay_texts():
    boxes, arrows = read(hostile().mermaid())
    assert len(boxes) == 10 and len(arrows) == 8
    shown = texts_of(hostile().svg())
    assert len(shown) == 18 and any('<b>&amp;"%%' in text for text in shown)
    with Graph() as graph:
        gort.spawn(int, name=HOSTILE).join()
    read(graph.mermaid()), read(graph.mermaid("objects")), texts_of(graph.svg())


def test_the_process_as_it_is():
    waits = [gort.go(gort.Chan().recv) for _ in range(3)]
    parked(*waits)
    boxes, arrows = read(gort.trace.mermaid())
    assert "Main Goroutine" in boxes and "chan receive" in boxes
    assert any(end == "chan receive" and "waits in" in words for _, end, words in arrows)
    assert "Main Goroutine" in texts_of(gort.trace.svg())
    for one in waits:
        one.cancel()


def test_mermaid_itself_parses_them(tmp_path):
    node = shutil.which("node")
    if node is None or not (PACKAGE / "node_modules" / "mermaid").exists():
        pytest.skip("mermaid is not there; `make diagrams` installs it")
    run(tmp_path, DOCUMENT.format(start=WAYS[0]))
    with Graph() as graph:
        gort.spawn(feed, (gort.Chan(10),), name=HOSTILE).join()
    texts = [
        hostile().mermaid(),
        graph.mermaid(),
        graph.mermaid("objects"),
        gort.trace.mermaid(),
        (tmp_path / "concurrency.mmd").read_text(),
        (tmp_path / "concurrency-objects.mmd").read_text(),
    ]
    (tmp_path / "all.md").write_text("".join(f"```mermaid\n{text}```\n\n" for text in texts))
    parse = [node, ROOT / "tools" / "diagrams.mjs", PACKAGE, tmp_path / "all.md"]
    done = subprocess.run(parse, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (0, "6 diagrams, 0 do not parse\n"), done.stderr
