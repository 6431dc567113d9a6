"""Where the test files of a CPython are: installed with it, or brought from elsewhere.

Some installs have no tests (Debian has them in a package of its own), some only most of them
(`make install` of 3.11.7 and 3.12.1 forgets test_concurrent_futures). What lacks is looked for in
the folder CPYTHON_SOURCE (a source tree of the same version), in Debian's package, in the source
archive of python.org, and for single files in the next newer CPython of this machine. The installed
tests and what was brought make a package `test` in the environment; PYTHONPATH puts it first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pythons
from pythons import Python

ARCHIVE = "https://www.python.org/ftp/python/{version}/Python-{version}.tar.xz"
CONNECT_SECONDS = 10
PROBE = """
import json, platform, ssl, sqlite3, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(), "openssl": ssl.OPENSSL_VERSION,
    "stdlib": sysconfig.get_paths()["stdlib"],
}))
"""


@dataclass
class Tests:
    """The tests of one Python: what to put on PYTHONPATH, what is not its own, what lacks."""

    path: Path | None = None
    notes: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def facts(python: Python) -> dict[str, str]:
    """Version, OpenSSL and the folder of the standard library, as this Python sees it."""
    cwd = python.root or Path("/")
    argv = [str(part) for part in python.command(python.program, "-c", PROBE, cwd=cwd)]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def outside(python: Python, path: str) -> Path:
    """A path of this Python as it is named here."""
    return Path(path) if python.root is None else python.root / path.lstrip("/")


def lacking(folder: Path, names: Iterable[str]) -> list[str]:
    """The files or packages of tests that a package `test` does not have."""
    places = {name: folder / name.replace(".", "/") for name in names}
    return [
        name
        for name, place in places.items()
        if not place.with_suffix(".py").exists() and not (place / "__init__.py").exists()
    ]


def find(python: Python, names: Iterable[str]) -> Tests:
    """The tests for these files; what is brought is kept in the environment of this Python."""
    known = facts(python)
    installed = outside(python, known["stdlib"]) / "test"
    missing = lacking(installed, names)
    if not missing:
        return Tests()
    own = python.venv() / "cpython-tests"
    stamp = own / f"notes-{known['version']}.json"
    if not stamp.exists():
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(installed, own / "test", ignore=shutil.ignore_patterns("__pycache__"))
        notes = bring_whole(python, known["version"], own / "test")
        stamp.write_text(json.dumps(notes))
    notes = json.loads(stamp.read_text())
    for name in lacking(own / "test", missing):
        notes |= borrow(python, name, own / "test")
    stamp.write_text(json.dumps(notes))
    why = "this Python came without it, and neither Debian's package, python.org nor a newer "
    absent = lacking(own / "test", missing)
    return Tests(
        own,
        {name: notes[name] for name in names if name in notes},
        dict.fromkeys(absent, why + "CPython here has it (CPYTHON_SOURCE names a source tree)"),
    )


def bring_whole(python: Python, version: str, target: Path) -> dict[str, str]:
    """Lay the whole package of the same version over the installed one, where it can be had."""
    source = os.environ.get("CPYTHON_SOURCE")
    if source:
        shutil.copytree(Path(source) / "Lib" / "test", target, dirs_exist_ok=True)
        return {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for bring in (from_debian, from_archive):
            found = bring(python, version, folder)
            if found is not None:
                shutil.copytree(found, target, dirs_exist_ok=True)
                return {}
    return {}


def from_debian(python: Python, version: str, folder: Path) -> Path | None:
    """Debian's package of tests, from the archive that this Python came from."""
    package = f"libpython{python.tag}-testsuite"
    options = ["-qq", "-o", "APT::Sandbox::User=root"]
    if not python.program.startswith(("/usr/bin", f"python{python.tag}")):
        return None
    if shutil.which("apt-get") is None:
        return None
    if python.root is not None:  # that root has no apt: ask its archive from here
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        key = "/usr/share/keyrings/debian-archive-keyring.gpg"
        sources = (python.root / "etc/apt/sources.list").read_text()
        (folder / "list").write_text(sources.replace("deb ", f"deb [signed-by={key}] "))
        for setting in (
            f"Dir::Etc::sourcelist={folder}/list", "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache",
            "Acquire::Check-Valid-Until=false",
        ):  # fmt: skip
            options += ["-o", setting]
        subprocess.run(["apt-get", *options, "update"], capture_output=True, check=False)
    subprocess.run(
        ["apt-get", *options, "download", package], cwd=folder, capture_output=True, check=False
    )
    for deb in folder.glob(f"{package}_{version}*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, folder / "deb"], check=True)
        return folder / "deb" / "usr" / "lib" / f"python{python.tag}" / "test"
    return None


def from_archive(python: Python, version: str, folder: Path) -> Path | None:
    """The release's source archive, where python.org can be reached."""
    archive = folder / "source.tar.xz"
    try:
        with urllib.request.urlopen(
            ARCHIVE.format(version=version), timeout=CONNECT_SECONDS
        ) as answer:
            archive.write_bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None
    prefix = f"Python-{version}/Lib/test/"
    with tarfile.open(archive) as tar:
        wanted = [member for member in tar if member.name.startswith(prefix)]
        tar.extractall(folder / "source", wanted, filter="data")
    return folder / "source" / prefix


def borrow(python: Python, name: str, target: Path) -> dict[str, str]:
    """Copy one file or package of tests from the next newer Python that has it."""
    for minor in range(python.minor + 1, pythons.MINORS[-1] + 1):
        other = pythons.here(minor)
        if other is None:
            continue
        known = facts(other)
        folder = Path(known["stdlib"]) / "test"
        if lacking(folder, [name]):
            continue
        place = folder / name.replace(".", "/")
        if place.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(place, target / name.replace(".", "/"), ignore=ignore)
        else:
            shutil.copy(place.with_suffix(".py"), target)
        return {name: f"the file of CPython {known['version']}: this Python came without it"}
    return {}
