"""An executor whose n-th allocation is refused, for all n: every future ends, no place is lost."""

from __future__ import annotations

import nomemory_futures
import pytest
from children import child


@pytest.mark.parametrize("operation", nomemory_futures.OPERATIONS)
def test_refused_allocation_loses_no_task_and_no_place(operation):
    pytest.importorskip("_testcapi", reason="this Python came without _testcapi")
    done = child(f"import nomemory_futures; nomemory_futures.sweep({operation!r})")
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
