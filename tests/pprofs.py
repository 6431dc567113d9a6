"""Reading profile.proto, and Go's own reader of it where there is one."""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest

#: Seconds: the first `go tool pprof` builds itself.
LIMIT = 280


def _varint(data: bytes, at: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return n, at


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message: number, and a number or bytes."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        n, at = _varint(data, at)
        if tag & 7 == 0:
            found.append((tag >> 3, n))
        else:
            assert tag & 7 == 2, tag
            assert at + n <= len(data)
            found.append((tag >> 3, data[at : at + n]))
            at += n
    return found


def packed(data: bytes | int) -> list[int]:
    """The numbers of a field that may be packed."""
    numbers, at = [], 0
    if isinstance(data, int):
        return [data - (1 << 64) if data >> 63 else data]
    while at < len(data):
        n, at = _varint(data, at)
        numbers.append(n - (1 << 64) if n >> 63 else n)
    return numbers


@dataclass
class Read:
    """A profile, read."""

    kinds: list[tuple[str, str]] = field(default_factory=list)
    period: tuple[tuple[str, str], int] = (("", ""), 0)
    #: Function names (leaf first), values and labels of each.
    samples: list[tuple[list[str], list[int], dict[str, str | int]]] = field(default_factory=list)
    lines: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    default: str = ""
    duration: int = 0

    def of(self, name: str) -> list[tuple[list[str], list[int], dict[str, str | int]]]:
        """The samples with a function of this name."""
        return [sample for sample in self.samples if any(name in f for f in sample[0])]


def read(data: bytes) -> Read:
    """Read a profile; every number must lead somewhere."""
    assert data[:2] == b"\x1f\x8b"
    every = fields(gzip.decompress(data))
    strings = [bytes(value).decode() for number, value in every if number == 6]
    assert strings[0] == "" and len(set(strings)) == len(strings)

    def kind(value: bytes) -> tuple[str, str]:
        parts = dict(fields(value))
        return strings[parts[1]], strings[parts[2]]

    functions = {}
    for number, value in every:
        if number == 5:
            parts = dict(fields(value))
            functions[parts[1]] = strings[parts[2]], strings[parts.get(4, 0)]
    locations = {}
    out = Read()
    for number, value in every:
        if number == 4:
            parts = dict(fields(value))
            line = dict(fields(parts[4]))
            name, file = functions[line[1]]
            locations[parts[1]] = name
            out.lines.setdefault(name, set()).add((file, line.get(2, 0)))
    single = dict(every)
    out.kinds = [kind(value) for number, value in every if number == 1]
    out.period = kind(single[11]), single[12]
    out.comments = [strings[value] for number, value in every if number == 13]
    out.default = strings[single.get(14, 0)]
    out.duration = single.get(10, 0)
    for number, value in every:
        if number == 2:
            parts = fields(value)
            stack = [locations[n] for k, v in parts if k == 1 for n in packed(v)]
            values = [n for k, v in parts if k == 2 for n in packed(v)]
            labels = {}
            for k, v in parts:
                if k == 3:
                    label = dict(fields(v))
                    labels[strings[label[1]]] = strings[label[2]] if 2 in label else label.get(3, 0)
            assert len(values) == len(out.kinds)
            out.samples.append((stack, values, labels))
    return out


def written(profile, debug: int = 0) -> bytes:
    """What a profile writes."""
    import io

    file = io.BytesIO()
    profile.write_to(file, debug)
    return file.getvalue()


def ask(server, path: str, method: str = "GET", body: bytes | None = None, **headers: str):
    """Status, headers and body of what a server of pprof answers."""
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def go() -> str:
    """The go command; skips the test, saying so, where there is none."""
    found = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if found is None:
        pytest.skip("SKIPPED, NOT TESTED: go is not on this machine, so no go tool pprof")
    return found


def pprof(*arguments: object, tmp_path, check: bool = True) -> str:
    """What `go tool pprof` prints; it must succeed, or, with check=False, fail."""
    done = subprocess.run(
        [go(), "tool", "pprof", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        env={
            **os.environ,
            "PPROF_TMPDIR": str(tmp_path),
            "GOFLAGS": "-mod=mod",
            "GOTOOLCHAIN": "local",
        },
    )
    assert (done.returncode == 0) == check, done.stdout + done.stderr
    return done.stdout + done.stderr
