"""gort.leak.find finds what Go's leak profile finds in the GoKer kernels, and nothing else."""

from __future__ import annotations

import pytest
from children import cases_of
from leak_kernels import KERNELS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def kernels():
    return cases_of("import leak_kernels; leak_kernels.main()", limit=280)


def test_all_kernels_of_go_are_here():
    assert len(KERNELS) == 63


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_kernel_is_found(name, kernels):
    assert kernels(name) == ""
