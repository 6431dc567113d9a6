"""The n-th allocation is refused, for all n: MemoryError or success, and nothing is lost."""

from __future__ import annotations

import nomemory
import pytest
from children import child


@pytest.mark.parametrize("operation", nomemory.OPERATIONS)
def test_refused_allocation_is_a_memory_error_or_nothing(operation):
    pytest.importorskip("_testcapi", reason="this Python came without _testcapi")
    done = child(f"import nomemory; nomemory.sweep({operation!r})")
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    assert "Error" not in done.stderr.replace("MemoryError", ""), done.stderr[-4000:]
