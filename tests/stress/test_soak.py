"""What the soak calls flat, and what it says grows."""

from __future__ import annotations

import random

import pytest
import soak

BUSY = {"RSS": 6.0, "threads": 8.0, "descriptors": 30.0}  # what the mix adds, at most
REST = {"RSS": 50.0, "threads": 8.0, "descriptors": 5.0}


def looks(leaks=None, busier=1.0):
    """240 looks at 20 minutes of the mix; `leaks` is how much each grows by in an hour."""
    rng, leaks = random.Random(7), leaks or {}
    for n in range(soak.SAMPLES):
        at = 5.0 * n
        busy = busier if n >= 2 * soak.SAMPLES // 3 else 1.0
        yield (
            at,
            *(
                rest
                + leaks.get(name, 0) * at // 3600
                + int(busy * BUSY[name] * rng.random() * (rng.random() < min(busy / 2, 0.8)))
                for name, rest in REST.items()
            ),
        )


@pytest.mark.parametrize("busier", [0.5, 1.0, 2.0])
def test_a_noisy_count_that_comes_back_to_rest_is_flat(busier):
    lines, flat = soak.verdict(list(looks(busier=busier)))
    assert flat, lines
    assert lines[3].startswith("| threads, floor | 8.0  | 8.0  |"), lines
    assert lines[4].startswith("| descriptors, floor | 5.0  | 5.0  |"), lines


@pytest.mark.parametrize(("name", "an_hour"), [("RSS", 120), ("threads", 30), ("descriptors", 30)])
def test_what_leaks_is_said_to_grow(name, an_hour):
    lines, flat = soak.verdict(list(looks({name: an_hour})))
    assert not flat, lines
