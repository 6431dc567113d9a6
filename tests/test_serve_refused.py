"""What `gort serve` refuses: one line that says why, and status 2; and the parts that decide it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from gort.cli import _supervisor
from gort.cli._serve_worker import NoAppError, find_app
from serving import APP, refused
from waiting import LIMIT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent:app",), "no module named 'absent'"),
        (("served.absent:app",), "no module named 'served.absent'"),
        (("served:absent",), "module 'served' has no 'absent'"),
        (("served:Holder.absent",), "module 'served' has no 'Holder.absent'"),
        (("served:VERSION",), "served:VERSION cannot be called: it is of type str"),
        (("served:make().app",), "not MODULE:APP: 'served:make().app'"),
        (("served",), "not MODULE:APP: 'served'"),
        (("served.py:app:x",), "not MODULE:APP: 'served.py:app:x'"),
        (("served:app", "--workers", "0"), "--workers must be 1 to 512, not 0"),
        (("served:app", "--workers", "-3"), "--workers must be 1 to 512, not -3"),
        (("served:app", "--workers", "100000"), "--workers must be 1 to 512, not 100000"),
        (("served:app", "--port", "65536"), "--port must be 0 to 65535, not 65536"),
        (("served:app", "--drain-timeout", "-1"), "drain_timeout must be positive seconds"),
        (("served:app", "--max-connections", "0"), "max_connections must be an int, 1 or more: 0"),
        (("served:app", "--tls-key", "pem"), "--tls-key needs --tls-cert"),
        (("served:app", "--tls-cert", "absent"), "absent: No such file or directory"),
        (("served:app", "--tls-cert", "served.py"), "served.py is no certificate with its key: "),
        (("served:app", "--host", "256.1.1.1"), "cannot listen at 256.1.1.1:8000: "),
        (("served:app", "--host", "unix:/absent/x"), "cannot listen at unix:/absent/x: No such"),
    ],
)
def test_what_is_no_good_is_said_in_one_line(tmp_path, arguments, words):
    (tmp_path / "served.py").write_text(APP)
    status, lines = refused(tmp_path, *arguments, *(() if len(arguments) > 1 else ("--port", "0")))
    assert status == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"gort serve: {words}")


def test_port_in_use_is_said(tmp_path):
    (tmp_path / "served.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, lines = refused(tmp_path, "served:app", "--port", str(port), "--workers", "2")
    assert (status, lines) == (
        2, [f"gort serve: cannot listen at 127.0.0.1:{port}: Address already in use"]
    )  # fmt: skip


def test_count_that_is_no_number_is_said(tmp_path):
    status, lines = refused(tmp_path, "served:app", "--workers", "many")
    assert status == 2
    assert lines[-1] == "gort serve: error: argument --workers: invalid int value: 'many'"


@pytest.mark.parametrize(
    ("text", "status", "last"),
    [
        ("1 / 0", 2, "importing served raised ZeroDivisionError: division by zero"),
        ("import absent", 2, "served needs 'absent', which is not there"),
        ("raise SystemExit('no\\nlines')", 2, "importing served raised SystemExit: no lines"),
        ("import os; os._exit(7)", 1, "ended with status 7 before it served"),
        ("import os; os.kill(os.getpid(), 9)", 1, "was killed by SIGKILL before it served"),
    ],
)
def test_application_that_cannot_be_had_is_said(tmp_path, text, status, last):
    (tmp_path / "served.py").write_text(text)
    found, lines = refused(tmp_path, "served:app", "--port", "0", "--workers", "3")
    assert found == status
    assert lines[-1].startswith("gort serve: ") and lines[-1].endswith(last)
    assert sum(line.startswith("gort serve: ") for line in lines) == 1
    assert ("Traceback" in "".join(lines)) == (status == 2)  # of the application's own lines


def test_application_is_found_by_name_path_or_factory(tmp_path, monkeypatch):
    (tmp_path / "found_app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("found_app:app", "found_app:make()", "found_app:Holder.app"):
        assert find_app(name).__name__ == "app"
    with pytest.raises(NoAppError, match="cannot be called"):
        find_app("found_app:VERSION()")
    monkeypatch.delitem(sys.modules, "found_app")


def test_worker_that_dies_again_and_again_is_started_later_each_time(monkeypatch):
    slot = _supervisor.Slot()
    waits = [slot.died(0.5) for _ in range(10)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == _supervisor.PAUSE_MOST == max(waits)
    assert slot.died(_supervisor.HEALTHY) == 0
    assert slot.died(0.5) == 0.1


def test_worker_without_its_supervisor_ends_at_once():
    code = (
        "import json, sys; from gort.cli._serve_worker import main\n"
        "main([json.dumps({'supervisor': 1, 'threads': False, 'app': 'x:y'}), '0'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=LIMIT, check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (1, b"")
