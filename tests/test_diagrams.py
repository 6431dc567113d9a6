"""Mermaid diagrams of the documents: what `make diagrams` had mermaid itself parse stays so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```", re.M | re.S)


def test_no_message_of_a_sequence_is_cut_by_a_semicolon():
    """There it ends the statement, and what follows is none."""
    found = [
        (file.name, line)
        for file in DOCUMENTS
        for diagram in DIAGRAM.findall(file.read_text())
        if diagram.startswith("sequenceDiagram")
        for line in diagram.splitlines()
        if ";" in line
    ]
    assert found == []
    assert sum(len(DIAGRAM.findall(file.read_text())) for file in DOCUMENTS) >= 10


def test_mermaid_parses_all():
    node, package = shutil.which("node"), ROOT / "target" / "mermaid"
    if node is None or not (package / "node_modules" / "mermaid").exists():
        pytest.skip("mermaid is not there; `make diagrams` installs it")
    parse = [node, ROOT / "tools" / "diagrams.mjs", package, *DOCUMENTS]
    done = subprocess.run(parse, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
