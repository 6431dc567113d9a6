"""gort.pprof: profiles as files."""

from __future__ import annotations

import io
import re
import threading
import tracemalloc

import gort
import gort.labels
import gort.pprof
import pytest
from leaking import start
from pprofs import pprof, read, written
from waiting import HERE, ended, waiter, waits_here


@pytest.fixture
def crowd():
    """Three goroutines that wait at one place, two of them labelled."""
    ch = gort.Chan()
    gs = [waiter(waits_here, ch)]
    with gort.labels.do(user='a "7"', kind="x"):
        gs += [waiter(waits_here, ch) for _ in range(2)]
    yield gs
    ended(*gs)


def goroutine():
    profile = gort.pprof.lookup("goroutine")
    assert profile is not None
    return profile


def test_goroutine_profile_counts_who_does_the_same_under_the_same_labels(crowd):
    profile = read(written(goroutine()))
    assert profile.kinds == [("goroutine", "count")]
    assert profile.period == (("goroutine", "count"), 1)
    found = {
        tuple(sorted(labels.items())): (values, stack)
        for stack, values, labels in profile.of("waits_here")
    }
    labelled = found[("kind", "x"), ("user", 'a "7"')]
    assert labelled[0] == [2] and found[()][0] == [1]
    assert labelled[1][0] == "gort.Chan.recv"
    assert labelled[1][1] == "waiting.waits_here"
    assert profile.lines["waiting.waits_here"] == {HERE}


def test_every_goroutine_is_in_it_the_main_one_too(crowd):
    profile = read(written(goroutine()))
    assert sum(values[0] for _, values, _ in profile.samples) == gort.num_goroutine()
    assert profile.of("test_every_goroutine_is_in_it")
    assert goroutine().count() == gort.num_goroutine()


def test_text_of_goroutines_is_gos(crowd):
    text = written(goroutine(), debug=1).decode()
    assert text.startswith(f"goroutine profile: total {gort.num_goroutine()}\n")
    blocks = [block for block in text.split("\n\n") if "waits_here" in block]
    head, labels, first = blocks[0].splitlines()[-3:]
    assert re.fullmatch(r"2 @( 0x[0-9a-f]+)+", head)
    assert labels == '# labels: {"kind":"x", "user":"a \\"7\\""}'
    file, line = HERE
    assert re.fullmatch(
        rf"#\t0x[0-9a-f]+\t+waiting\.waits_here\+0x[0-9a-f]+\t+{re.escape(file)}:{line}", first
    )
    assert re.fullmatch(r"1 @( 0x[0-9a-f]+)+", blocks[1].splitlines()[-2])


def test_text_columns_are_aligned_with_tabs():
    def deeper(ch):
        waits_here(ch)

    g = waiter(deeper, gort.Chan())
    text = written(goroutine(), debug=1).decode()
    [block] = [b for b in text.split("\n\n") if "deeper" in b]
    lines = [line for line in block.splitlines() if line.startswith("#\t")]
    ends = {len(line[: line.rindex("\t") + 1].expandtabs(8)) for line in lines}
    assert len(lines) == 2 and len(ends) == 1
    assert lines[1].count("\t") == 3  # the widest has one tab behind each cell
    g.cancel()


def test_dump_of_goroutines_begins_with_who_asks(crowd):
    text = written(goroutine(), debug=2).decode()
    assert text.startswith("goroutine 1 [running")
    assert f"goroutine {crowd[0].id} [chan receive]:\nwaiting.waits_here(...)\n\t{HERE[0]}:" in text


def test_profiles_of_leaks_show_those_alone():
    start(lambda: gort.Chan().recv())
    held = gort.Chan()
    other = waiter(waits_here, held)
    profile = gort.pprof.lookup("goroutineleak")
    text = written(profile, debug=1).decode()
    assert text.startswith("goroutineleak profile: total ") and "waits_here" not in text
    total = int(text.split()[3])
    assert total >= 1 and profile.count() == total
    assert sum(values[0] for _, values, _ in read(written(profile)).samples) == total
    assert "[chan receive (leaked)" in written(profile, debug=2).decode()
    held.send(1)
    other.join()


def test_threads_are_counted():
    profile = gort.pprof.lookup("threadcreate")
    event, begun = threading.Event(), threading.Event()
    with gort.threads.real():
        t = threading.Thread(target=lambda: (begun.set(), event.wait()))
        t.start()
    begun.wait()
    assert profile.count() >= 3  # main's, this one, sysmon
    names = [stack[0] for stack, _, _ in read(written(profile)).samples]
    assert "gort-sysmon" in names
    event.set()
    t.join()


def kept_by_someone():
    return [bytes(5_000) for _ in range(40)]


def test_heap_names_who_asked_for_it():
    tracemalloc.start(8)
    try:
        kept = kept_by_someone()
        profile = read(written(gort.pprof.lookup("heap")))
        text = written(gort.pprof.lookup("heap"), debug=1).decode()
    finally:
        tracemalloc.stop()
    assert [kind for kind, _ in profile.kinds] == [
        "alloc_objects",
        "alloc_space",
        "inuse_objects",
        "inuse_space",
    ]
    found = [
        s
        for s in profile.of("kept_by_someone")
        if "kept_by_someone" in s[0][0] or "<listcomp>" in s[0][0]
    ]
    large = [values for _, values, labels in found if labels["bytes"] > 5_000]
    assert sum(values[2] for values in large) >= len(kept)
    assert all(values[3] == values[2] * labels["bytes"] for _, values, labels in profile.samples)
    assert text.startswith("heap profile: ") and "# runtime.MemStats" in text


def test_heap_without_tracemalloc_has_the_runtimes_own_and_says_why():
    profile = read(written(gort.pprof.lookup("allocs")))
    assert profile.default == "alloc_space"
    assert any("tracemalloc is off" in comment for comment in profile.comments)
    assert profile.of("gort.metadata")


def test_profile_of_ones_own():
    name = "test_pprof.connections"
    profile = gort.pprof.new_profile(name)
    assert gort.pprof.lookup(name) is profile and profile in gort.pprof.profiles()

    def opens(value, skip=0):
        profile.add(value, skip)

    opens(1)
    opens(2)
    opens(3, skip=1)
    opens(4, skip=1000)
    assert profile.count() == 4
    found = read(written(profile))
    assert found.kinds == [(name, "count")]
    first = [stack[0] for stack, _, _ in found.samples]
    assert "gort.pprof.lost" in first and sum("opens" in name for name in first) == 2
    assert written(profile, debug=1).decode().startswith(f"{name} profile: total 4\n")
    with pytest.raises(ValueError, match="duplicate value"):
        opens(1)
    for value in (1, 2, 3, 4, "never there"):
        profile.remove(value)
    assert profile.count() == 0 and read(written(profile)).samples == []


def test_names_of_profiles_are_unique_and_not_empty():
    with pytest.raises(ValueError, match="name already in use: goroutine"):
        gort.pprof.new_profile("goroutine")
    with pytest.raises(ValueError, match="empty name"):
        gort.pprof.new_profile("")
    with pytest.raises(ValueError, match="built-in profile heap"):
        gort.pprof.lookup("heap").add(1)
    assert [p.name for p in gort.pprof.profiles()] == sorted(p.name for p in gort.pprof.profiles())


def test_writing_to_what_cannot_be_written_raises():
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        goroutine().write_to(Full())


def test_names_that_would_break_a_line_are_escaped():
    space = {"gort": gort, "__name__": "a\nb"}
    exec(compile("def f(ch): ch.recv()", "file\nname.py", "exec"), space)
    ch = gort.Chan()
    g = gort.spawn(space["f"], (ch,), name="n\n]:")
    gort.gosched()
    text = written(goroutine(), debug=2).decode() + written(goroutine(), debug=1).decode()
    assert "a\\nb.f" in text and "file\\nname.py:1" in text and 'name "n\\n]:"' in text
    assert read(written(goroutine())).of("a\\nb.f")
    g.cancel()


@pytest.mark.timeout(300)
def test_go_tool_pprof_reads_all_of_them(crowd, tmp_path):
    for profile in gort.pprof.profiles():
        file = tmp_path / profile.name
        file.write_bytes(written(profile))
        raw = pprof("-raw", file, tmp_path=tmp_path)
        assert "Samples:" in raw and "Mappings" in raw
    file = tmp_path / "goroutine"
    assert "waiting.waits_here" in pprof("-top", "-cum", file, tmp_path=tmp_path)
    assert "gort.Chan.recv" in pprof("-traces", file, tmp_path=tmp_path)
    assert 'a "7"' in pprof("-tags", file, tmp_path=tmp_path).replace("\\", "")
    assert "waits_here" in pprof("-peek", "waits_here", file, tmp_path=tmp_path)
    assert "digraph" in pprof("-dot", file, tmp_path=tmp_path)
    copy = tmp_path / "copy"
    pprof("-proto", f"-output={copy}", file, tmp_path=tmp_path)
    assert sorted(read(copy.read_bytes()).samples) == sorted(read(file.read_bytes()).samples)
    assert "alloc_space" in pprof(
        "-top", "-sample_index=alloc_space", tmp_path / "heap", tmp_path=tmp_path
    )
