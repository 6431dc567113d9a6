"""Interpreters inside interpreters: subinterpreters are refused, and so is an interpreter after the one gort began in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import gort
import pytest
from children import check

INTERPRETERS = """
import sys
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
def run(code, *kind):
    "Runs code in a new subinterpreter; what it raised, as text, or None."
    one = interpreters.create(*kind)
    try:
        if hasattr(interpreters, "exec"):
            failed = interpreters.exec(one, code)
            return failed and failed.msg
        interpreters.run_string(one, code)
    except interpreters.RunFailedError as error:
        return str(error)
    finally:
        interpreters.destroy(one)
kinds = [["legacy"], ["isolated"]] if sys.version_info >= (3, 13) else [[]]
"""


def test_subinterpreters_cannot_import_gort_and_do_no_harm():
    check(
        INTERPRETERS
        + """
import gort
assert gort.go(lambda: 1).join() == 1
for kind in kinds:
    error = run("import gort", *kind)
    # Those with a GIL of their own CPython refuses itself.
    assert "main interpreter only" in error or "does not support loading in subinterpreters" in error, error
assert gort.go(lambda: 2).join() == 2
assert isinstance(gort.go(print), gort.Goroutine)
"""
    )


def test_a_subinterpreter_that_is_first_leaves_gort_to_the_main_interpreter():
    check(
        INTERPRETERS
        + """
for kind in kinds:
    assert "subinterpreter" in run("import gort", *kind)
import gort
assert gort.go(lambda: 2).join() == 2
"""
    )


PROGRAM = r"""
#include <Python.h>
static int run(const char *code) {
    Py_Initialize();
    int result = PyRun_SimpleString(code);
    return Py_FinalizeEx() | result;
}
int main(int count, char **codes) {
    int result = 0;
    for (int i = 1; i < count; i++)
        result |= run(codes[i]);
    return result != 0;
}
"""


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    """A C program that runs each of its arguments in an interpreter of its own, one after the other."""
    library = sysconfig.get_config_var("LDLIBRARY") or ""
    folder = sysconfig.get_config_var("LIBDIR")
    include = sysconfig.get_path("include")
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    if not library.endswith(".so") or not (Path(include) / "Python.h").exists():
        pytest.skip("this Python has no shared library to link with, or no headers")
    path = tmp_path_factory.mktemp("embedding")
    (path / "main.c").write_text(PROGRAM)
    name = library.removeprefix("lib").removesuffix(".so")
    done = subprocess.run(
        ["cc", "main.c", "-o", "main", f"-I{include}", f"-L{folder}", f"-l{name}"]
        + [f"-Wl,-rpath,{folder}"],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path / "main"


def embedded(program, *codes):
    """What the program printed for `codes`, each with gort at hand."""
    site = Path(gort.__file__).parent.parent
    head = f"import sys\nsys.path.insert(0, {str(site)!r})\n"
    done = subprocess.run(
        [program, *(head + code for code in codes)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


USE = """
import gort
ch = gort.Chan()
gort.go(ch.send, 5)
gort.go(gort.Chan().recv)
gort.go(lambda: [gort.sleep(0.001) for _ in range(1000)])
print(ch.recv(), gort.go(lambda: 7).join())
"""


def test_gort_works_in_an_embedded_interpreter(embedding):
    assert embedded(embedding, USE) == "5 7\n"


def test_an_interpreter_after_the_first_is_told_that_gort_has_stopped(embedding):
    again = """
try:
    import gort
    gort.go(print)
except RuntimeError as error:
    print(type(error).__name__, error)
"""
    text = (
        "RuntimeStopped gort has stopped: the interpreter it began in is shutting down, or gone\n"
    )
    assert embedded(embedding, USE, again, again) == "5 7\n" + 2 * text
