"""The wheel, installed into an empty environment away from the tree, works there by itself.

tools/matrix.py names the wheel under test in the variable WHEEL; by hand, it is the one in dist/.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import gort
import pytest

ROOT = Path(__file__).resolve().parent.parent
TAG = f"cp3{sys.version_info.minor}"

pytestmark = pytest.mark.timeout(300)  # making an environment takes its time on a busy machine


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel for this Python."""
    named = os.environ.get("WHEEL")
    found = [Path(named)] if named else sorted((ROOT / "dist").glob(f"gort-*-{TAG}-*.whl"))
    assert found, "no wheel for this Python in dist/: make wheel"
    return found[-1]


@pytest.fixture(scope="module")
def empty(wheel, tmp_path_factory):
    """A new environment with nothing but the wheel, installed without an index."""
    place = tmp_path_factory.mktemp("away")
    run(sys.executable, "-m", "venv", place / "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-index", wheel, cwd=place)
    return place


def run(*command: object, cwd: Path) -> str:
    """Run a command without the variables that would lead back to the tree; its stdout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GORT_", "WHEEL"))}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=100, cwd=cwd, env=env,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_has_the_tags_it_claims(wheel):
    assert f"-{TAG}-{TAG}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/WHEEL")]
        tags = re.findall(r"^Tag: (.+)$", archive.read(name).decode(), re.M)
    assert all(tag.startswith(f"{TAG}-{TAG}-") for tag in tags)
    assert all(tag.split("-")[2] in wheel.name for tag in tags)


def test_wheel_record_has_a_true_hash_for_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/RECORD")]
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(name).decode()))}
        assert set(rows) == set(archive.namelist())
        for file, (digest, size) in rows.items():
            if file != name:
                data = archive.read(file)
                text = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                assert (digest, int(size)) == ("sha256=" + text.decode(), len(data)), file


def test_wheel_needs_nothing_at_run_time_and_offers_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        data = Parser().parsestr(archive.read(name).decode())
        names = archive.namelist()
    assert data["Version"] == gort.__version__
    assert data["Requires-Python"] == ">=3.11"
    assert [n for n in data.get_all("Requires-Dist", []) if "extra ==" not in n] == []
    assert {"cli", "bench"} <= set(data.get_all("Provides-Extra"))
    assert {"gort/py.typed", "gort/_core.pyi", "gort/pprof/_page/live.html"} <= set(names)
    assert not [n for n in names if "tests/" in n or "test_" in n or n.endswith(".pyc")]


def test_wheel_in_an_empty_environment_runs_the_demo_and_the_doctor(empty):
    gort_command = empty / "venv" / "bin" / "gort"
    page = empty / "page.html"
    options = ("--files", 20, "--goroutines", 2000, "--out", page)
    text = run(gort_command, "demo", *options, cwd=empty)
    assert re.search(r"^released and counted +2,000 ", text, re.M)
    assert page.stat().st_size > 2000
    doctor = run(gort_command, "doctor", cwd=empty)
    assert f"at {empty}/venv/lib" in doctor
    assert "python support         supported" in doctor


def test_wheel_in_an_empty_environment_uninstalls_without_rest(empty, wheel):
    python = empty / "venv" / "bin" / "python"
    run(python, "-m", "pip", "uninstall", "-q", "-y", "gort", cwd=empty)
    rest = [p for p in (empty / "venv").rglob("*gort*") if "__pycache__" not in p.parts]
    assert rest == []
    run(python, "-m", "pip", "install", "-q", "--no-index", wheel, cwd=empty)
    code = "import gort; print(gort.go(pow, 2, 5).join())"
    assert run(python, "-c", code, cwd=empty) == "32\n"


def imports(binary: bytes) -> list[tuple[str, bool]]:
    """Names that an ELF file must find elsewhere, and whether each asks for a version."""
    (table,) = struct.unpack_from("<Q", binary, 0x28)
    size, count = struct.unpack_from("<HH", binary, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", binary, table + i * size) for i in range(count)]
    names = versions = symbols = b""
    found = []
    for kind, at, length, link in ((s[1], s[4], s[5], s[6]) for s in sections):
        if kind == 11:  # SHT_DYNSYM; `link` is its string table
            symbols = binary[at : at + length]
            names = binary[sections[link][4] :]
        elif kind == 0x6FFFFFFF:  # SHT_GNU_versym
            versions = binary[at : at + length]
    for i in range(1, len(symbols) // 24):
        name, info, _, section = struct.unpack_from("<IBBH", symbols, i * 24)
        if section == 0 and info >> 4 == 1:  # undefined and not weak
            text = names[name : names.index(b"\0", name)].decode()
            found.append((text, struct.unpack_from("<H", versions, i * 2)[0] & 0x7FFF > 1))
    return found


def test_extension_asks_the_c_library_for_nothing_newer_than_its_tag(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".so"))
        found = imports(archive.read(name))
    assert "read" in dict(found)
    # What the linker did not find in the C library of the tag has no version.
    unknown = [name for name, versioned in found if not versioned]
    assert [name for name in unknown if not name.startswith(("Py", "_Py"))] == []
