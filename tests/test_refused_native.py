"""The n-th request for native memory is refused, for all n: MemoryError or success, and nothing is lost."""

from __future__ import annotations

import pytest
import refusing
from children import child, shared_library


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return shared_library(tmp_path_factory.mktemp("refuse") / "refuse.so", refusing.SOURCE)


@pytest.mark.parametrize("operation", refusing.OPERATIONS)
def test_refused_request_is_a_memory_error_or_nothing(operation, library):
    done = child(f"import refusing; refusing.sweep({operation!r})", LD_PRELOAD=library)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    assert "Error" not in done.stderr.replace("MemoryError", ""), done.stderr[-4000:]


def test_memory_that_is_refused_for_long_is_a_memory_error(library):
    code = "import refusing; refusing.sweep('fills_a_buffer', lasts=True)"
    done = child(code, LD_PRELOAD=library)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    told = done.stdout.split()
    assert int(told[2]) > 3 and int(told[4]) > 1, told
