"""No false positive on the ported Go tests: see leak_oracle.py.

Whether the tests themselves pass beside such searches does not matter: some measure time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = ("go_ported", "test_chan.py", "test_select.py", "test_sync.py", "test_sync_cond.py")


@pytest.mark.timeout(300)
def test_nothing_reported_in_the_ported_go_tests_goes_on():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "leak_oracle"]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in FILES)],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    told = re.search(
        r"leak oracle: (\d+) searches, (\d+) reported, (\d+) of them wrong", done.stdout
    )
    assert told, done.stdout + done.stderr
    assert int(told[1]) > 20
    assert told[3] == "0", done.stdout
