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
        if lacking(own / "test", missing):
            notes |= borrow(python, missing, own / "test")
        stamp.write_text(json.dumps(notes))
    notes = json.loads(stamp.read_text())
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
        debian = from_debian(python, folder)
        found = debian[0] if debian and debian[1] == version else from_archive(version, folder)
        if found is not None:
            shutil.copytree(found, target, dirs_exist_ok=True)
    return {}


def from_debian(python: Python, folder: Path) -> tuple[Path, str] | None:
    """Debian's package of tests for this minor version, and the version it is of.

    The lists of packages are fetched into `folder`: neither the machine's are touched, nor is a
    root needed that has apt.
    """
    if shutil.which("apt-get") is None:
        return None
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    settings = [
        "APT::Sandbox::User=root", "Acquire::Check-Valid-Until=false",
        f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache",
    ]  # fmt: skip
    if python.root is not None:
        key = "/usr/share/keyrings/debian-archive-keyring.gpg"
        sources = (python.root / "etc/apt/sources.list").read_text()
        (folder / "list").write_text(sources.replace("deb ", f"deb [signed-by={key}] "))
        settings += [f"Dir::Etc::sourcelist={folder}/list", "Dir::Etc::sourceparts=/dev/null"]
    apt = ["apt-get", "-qq", *(f"-o{setting}" for setting in settings)]
    package = f"libpython{python.tag}-testsuite"
    for rest in (["update"], ["download", package]):
        subprocess.run([*apt, *rest], cwd=folder, capture_output=True, check=False)
    for deb in folder.glob(f"{package}_*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, folder / "deb"], check=True)
        version = deb.name.split("_")[1].split("-")[0]
        return folder / "deb" / "usr" / "lib" / f"python{python.tag}" / "test", version
    return None


def from_archive(version: str, folder: Path) -> Path | None:
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


def borrow(python: Python, names: Iterable[str], target: Path) -> dict[str, str]:
    """Copy single files or packages of tests of another version, and say of which.

    Debian's of the same minor version come first, then those of the next newer Python here.
    """
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        places = [from_debian(python, Path(name))]
        others = (pythons.here(minor) for minor in range(python.minor + 1, pythons.MINORS[-1] + 1))
        for other in others:
            if other is not None:
                known = facts(other)
                places.append((Path(known["stdlib"]) / "test", known["version"]))
        for folder, version in filter(None, places):
            lent = set(lacking(target, names)) - set(lacking(folder, names))
            for file in lent:
                copy_tests(folder / file.replace(".", "/"), target / file.replace(".", "/"))
                notes[file] = f"the file of CPython {version}: this Python came without it"
    return notes


def copy_tests(source: Path, target: Path) -> None:
    """Copy a file of tests, given without its suffix, or a package."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source.with_suffix(".py"), target.with_suffix(".py"))
