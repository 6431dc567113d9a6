"""Go's tools take what a running service says of itself: each command that Go's users know, as it is.

Profiles of all kinds from files and from URLs, and traces, of `observed_service`.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import traces
from pprofs import go, pprof, read

pytestmark = [
    pytest.mark.timeout(500),
    pytest.mark.skipif(
        traces.go() is None, reason="SKIPPED, NOT TESTED: go is not here, so none of its tools"
    ),
]
KINDS = (
    "allocs", "block", "goroutine", "goroutineleak", "heap", "mutex", "profile", "threadcreate",
)  # fmt: skip
#: A function that is in the profile, where there surely is one.
NAMES = {
    "allocs": "observed_service.allocates",
    "block": "contends",
    "goroutine": "__main__.asks",
    "goroutineleak": "__main__.leaks",
    "heap": "observed_service.allocates",
    "mutex": "contends",
    "profile": "__main__.computes",
}


#: No functions are left out because they have little: which have is a matter of the moment.
ALL = ("-nodecount=10000", "-nodefraction=0", "-edgefraction=0")

#: One that may come late: a machine that is busy takes its time.
SECOND = ("-seconds", "1", "-timeout", "100")


class Service:
    """The service: `host` is where its profiles are."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        words = process.stdout.readline().split()
        assert len(words) == 2, words
        self.port, self.host = words[0], f"127.0.0.1:{words[1]}"

    def url(self, name: str) -> str:
        """Where a profile is."""
        query = "?seconds=1" if name == "profile" else ""
        return f"http://{self.host}/debug/pprof/{name}{query}"


@pytest.fixture(scope="module")
def service():
    command = [sys.executable, str(Path(__file__).with_name("observed_service.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Service(process)
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()


def fetched(url: str, path: Path) -> Path:
    """What `curl -o` does."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        path.write_bytes(answer.read())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_pprof_takes_every_kind_from_a_file(service, tmp_path, kind):
    file = fetched(service.url(kind), tmp_path / kind)

    def tool(*arguments):
        return pprof(*arguments, file, tmp_path=tmp_path)

    name = NAMES.get(kind, "")
    assert "Samples:" in tool("-raw")
    assert name in tool("-top", "-cum", *ALL)
    assert name in tool("-traces")
    tool("-tags")
    assert name in tool(*ALL, "-peek", ".")
    assert tool("-dot").count("digraph") == 1
    copy = tmp_path / "copy"
    tool("-proto", f"-output={copy}")
    assert sorted(read(copy.read_bytes()).samples) == sorted(read(file.read_bytes()).samples)


@pytest.mark.parametrize("kind", KINDS)
def test_pprof_takes_every_kind_from_a_running_service(service, tmp_path, kind):
    text = pprof("-top", "-cum", *ALL, service.url(kind), tmp_path=tmp_path)
    assert NAMES.get(kind, "") in text
    for flag in ("-raw", "-traces", "-dot") if kind != "profile" else ():
        pprof(flag, service.url(kind), tmp_path=tmp_path)


def test_pprof_takes_what_only_an_address_asks_for(service, tmp_path):
    url = service.url("heap")
    for index in ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space"):
        text = pprof("-top", f"-sample_index={index}", url, tmp_path=tmp_path)
        assert f"Type: {index}" in text
    before = fetched(service.url("goroutine"), tmp_path / "before")
    pprof("-top", "-base", before, service.url("goroutine"), tmp_path=tmp_path)
    for kind in ("heap", "goroutine", "mutex"):
        pprof("-top", *SECOND, service.url(kind), tmp_path=tmp_path)
    for address in (f"http://{service.host}", service.host, f"{service.host}/debug/pprof/profile"):
        assert "Type: cpu" in pprof("-top", *SECOND, address, tmp_path=tmp_path)


def tool(*arguments: object, **options: object) -> str:
    """What `go tool trace` prints; it must succeed."""
    done = subprocess.run(
        [go(), "tool", "trace", *map(str, arguments)],
        capture_output=True, timeout=250, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:].decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def trace(service, tmp_path_factory):
    """A trace of a second, as curl gets it."""
    path = tmp_path_factory.mktemp("trace") / "t"
    return fetched(f"http://{service.host}/debug/pprof/trace?seconds=1", path)


def test_trace_takes_a_trace_of_a_running_service(trace):
    assert traces.read(trace.read_bytes()).counts["UserTaskBegin"] > 0
    parsed = tool("-d=parsed", trace)
    for what in ("StateTransition", "TaskBegin", "RegionBegin", "Log", "Metric"):
        assert f" {what} " in parsed, what
    assert "GoCreate" in tool("-d=wire", trace)
    assert "GoBlock" in tool("-d=footprint", trace)


@pytest.mark.parametrize("kind", ["net", "sync", "syscall", "sched"])
def test_trace_makes_profiles_of_a_trace(trace, tmp_path, kind):
    profile = tmp_path / kind
    with profile.open("wb") as file:
        command = [go(), "tool", "trace", f"-pprof={kind}", str(trace)]
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.PIPE, timeout=250, check=False
        )
    assert done.returncode == 0, done.stderr.decode()
    text = pprof("-top", "-cum", *ALL, profile, tmp_path=tmp_path)
    assert "Showing nodes" in text
    if kind == "sync":
        assert "__main__.contends" in text


@contextlib.contextmanager
def viewer(trace):
    """`go tool trace` with a trace in a browser, without the browser."""
    program = subprocess.run([go(), "tool", "-n", "trace"], capture_output=True, check=True).stdout
    command = [program.decode().strip(), "-http=127.0.0.1:0", str(trace)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={"PATH": "", "BROWSER": "true"}
    ) as process:
        try:
            for line in process.stderr:
                found = re.search(r"listening on (http://\S+)", line)
                if found:
                    break
            yield found[1]
        finally:
            process.kill()


def test_trace_shows_a_trace(trace):
    with viewer(trace) as url:
        for path in (
            "", "goroutines", "jsontrace?view=proc", "jsontrace?view=thread", "usertasks", "userregions", "mmu",
            "io?raw=1", "block?raw=1", "syscall?raw=1", "sched?raw=1", "usertask?type=request",
            "userregion?type=answer",
        ):  # fmt: skip
            with urllib.request.urlopen(f"{url}/{path}", timeout=100) as answer:
                assert answer.status == 200 and answer.read(), path
        with urllib.request.urlopen(f"{url}/goroutines", timeout=100) as answer:
            assert "__main__.asks" in answer.read().decode()
