"""Connections that end in every way leave nothing behind: the short form of `make churn`."""

from __future__ import annotations

from pathlib import Path

import pytest
from children import check, child

CHURN = f"""
import argparse, sys
sys.path.insert(0, {str(Path(__file__).resolve().parent / "stress")!r})
import churn, gort
def run(count):
    return gort.run(churn.main, argparse.Namespace(connections=count, seconds=0))
"""


def test_connections_that_end_in_every_way_leave_nothing():
    told = check(CHURN + "assert run(1600) == 0")
    assert told.startswith("1,600 connections in ")
    assert "descriptors: " in told and "goroutines: " in told


@pytest.mark.parametrize(
    ("leak", "what"),
    [
        ("churn.dial(servers.echo)", "descriptors, goroutines"),
        ("gort.go(gort.Chan().recv)", "goroutines"),
        ("open('/dev/null')", "descriptors"),
    ],
)
def test_what_stays_is_said(leak, what):
    done = child(
        CHURN
        + f"""
held = []
def leaks(servers):
    if len(held) < 40:
        held.append({leak})
churn.SETTLE, churn.WARM = 0.2, 1
churn.KINDS = (leaks,)
sys.exit(run(40))
"""
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
    assert f"THERE IS MORE OF: {what}" in done.stdout
