"""The drivers that the boundary knows: what of them is answered, and that their compiled code holds nothing
of a thread over a call but what is rewritten when a goroutine moves (docs/drivers.md).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from children import check
from driving import needs

ROOT = Path(__file__).resolve().parent.parent
#: By module that brings them in: the objects that must be known, and what each waits in.
OBJECTS = {
    "psycopg": {"_psycopg": "poll", "libpq": "poll"},
    "psycopg2": {"_psycopg": "select", "libpq": "poll"},
    "MySQLdb": {"_mysql": None, "libmariadb": "poll"},
    "pycurl": {"_pycurl": None, "libcurl": "poll"},
}

FOUND = """
import json
import gort, gort.boundary
gort.go(int).join()
import {module}
known = [o for o in gort.boundary.status().objects if o.kind == "driver"]
print(json.dumps([[o.path, o.names, o.error] for o in known]))
"""


def known(module: str) -> dict[str, tuple[str, list[str]]]:
    """By stem the objects of a module that are known as drivers: the file and what is replaced."""
    needs(module.partition(".")[0])
    found = {}
    for path, names, error in json.loads(check(FOUND.format(module=module))):
        assert error is None, (path, error)
        found[Path(path).name.partition(".")[0].partition("-")[0]] = (path, names)
    return found


@pytest.mark.parametrize("module", OBJECTS)
def test_what_a_driver_waits_in_is_answered(module):
    objects = known(module)
    for stem, waits in OBJECTS[module].items():
        assert stem in objects, objects
        assert waits is None or waits in objects[stem][1], objects[stem]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump here (binutils)")
@pytest.mark.parametrize("module", OBJECTS)
def test_a_driver_keeps_no_address_of_its_thread_but_errnos(module):
    files = [path for path, _ in known(module).values()]
    tool = [sys.executable, ROOT / "tools/audit_moving.py", "--cache", ROOT / "target" / "audit"]
    done = subprocess.run([*tool, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) == len(files) and all(local == other == "0" for _, local, other, _ in rows)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here (binutils)")
@pytest.mark.parametrize("module", OBJECTS)
def test_a_driver_has_no_thread_locals_and_no_keys(module):
    for path, _ in known(module).values():
        listed = subprocess.run(
            ["readelf", "-lWr", path], capture_output=True, text=True, check=True
        ).stdout
        assert " TLS " not in listed, path
        assert "pthread_key_create" not in listed, path
        assert "pthread_setspecific" not in listed, path
