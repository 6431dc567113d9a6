"""The tree keeps its rules: sizes, texts, import order, no waiting by time in tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "gort"
LINES = 500
FUNCTION_LINES = 60

# A module imports only modules of gort that stand above it. `gort` itself is last but for the
# command line, which is a user of it like any other.
ORDER = (
    "_supported",
    "_typing",
    "_exceptions",
    "_closing",
    "_core",
    "_deadline",
    "_dump",
    "_health",
    "_async",
    "boundary",
    "memory",
    "threads",
    "labels",
    "local",
    "chan",
    "cache",
    "_receiving",
    "context",
    "iter",
    "pubsub",
    "rate",
    "policy",
    "runtime",
    "_scope_child",
    "_scope_errors",
    "_scope_map",
    "errgroup",
    "flow",
    "scopes",
    "structured",
    "time",
    "pool",
    "_lazyfuture",
    "_work",
    "futures",
    "_depths",
    "_watch",
    "leak",
    "deadlock",
    "_deadlocks",
    "_unreachable",
    "gc",
    "metrics._model",
    "metrics._sources",
    "metrics._names",
    "metrics._read",
    "metrics._prometheus",
    "metrics._otel",
    "metrics._app",
    "metrics.__init__",
    "_graph",
    "_graphlayout",
    "_graphdraw",
    "_graphviews",
    "_tracewire",
    "_tracefile",
    "_tracefeed",
    "trace",
    "pprof._model",
    "pprof._heap",
    "pprof._kinds",
    "pprof._contention",
    "pprof._cpu",
    "pprof._profiles",
    "pprof._http",
    "pprof._state",
    "pprof._live",
    "pprof._serve",
    "pprof.__init__",
    "atomic",
    "barrier",
    "singleflight",
    "sync",
    "net._errors",
    "net._address",
    "net._conn",
    "net._dns",
    "net._listen",
    "net._packet",
    "net._sockets",
    "net._dial",
    "net._tls",
    "net.__init__",
    "__init__",
    "wsgi._settings",
    "wsgi._log",
    "wsgi._head",
    "wsgi._conn",
    "wsgi._body",
    "wsgi._response",
    "wsgi._serving",
    "wsgi._accept",
    "wsgi._server",
    "wsgi.__init__",
    "gunicorn",
    "testing.synctest",
    "testing._parked",
    "testing._leaks",
    "testing._sequencer",
    "testing.__init__",
    "testing._pytest",
    "cli._output",
    "cli._measure",
    "cli._latency",
    "cli._report",
    "cli._bench_report",
    "cli._progress",
    "cli._load",
    "cli.service_program",
    "cli._service",
    "cli._million",
    "cli.threaded_program",
    "cli._unchanged",
    "cli._work",
    "cli.run",
    "cli._trace_model",
    "cli._trace_json",
    "cli._trace_store",
    "cli._trace_server",
    "cli.trace",
    "cli._serve_worker",
    "cli._supervisor",
    "cli.serve",
    "cli._top_figures",
    "cli._top_client",
    "cli._top_text",
    "cli._top_screen",
    "cli._top_loop",
    "cli.top",
    "cli.demo",
    "cli.bench",
    "cli.doctor",
    "cli.__init__",
    "__main__",
)
# Tests for which time itself is the subject may call these.
SLEEP = re.compile(r"^\s*(time|gort)\.sleep\(", re.M)
SLEEPERS = {"waiting.py", "conftest.py"}


def python_files() -> list[Path]:
    """Every Python file of the project."""
    folders = ("python", "tests", "tools", "benches", "examples")
    hidden = {".venv-bench", "__pycache__"}
    found = [p for f in folders for p in (ROOT / f).rglob("*.py") if not hidden & set(p.parts)]
    assert len(found) > 30
    return sorted(found)


def named(path: Path) -> str:
    """The name of a file in reports."""
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    """The dotted name of a module of the package, as ORDER has it."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", python_files(), ids=named)
def test_python_file_is_short_and_says_what_it_is(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= LINES
    assert ast.get_docstring(tree), "no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", python_files(), ids=named)
def test_python_file_has_no_todo_and_no_forgotten_breakpoint(path):
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "breakpoint" + "()")
    assert [w for w in words if w in path.read_text()] == []


def test_library_does_not_print():
    programs = {
        "service_program.py",
        "threaded_program.py",
    }  # what `gort demo` runs in processes of its own
    calls = [
        named(path)
        for path in PACKAGE.rglob("*.py")
        if path.name not in programs
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert calls == []


def test_modules_import_in_one_direction():
    for path in PACKAGE.rglob("*.py"):
        name = module_name(path)
        assert name in ORDER, f"{name}: give it a place in ORDER"
        for imported in imports_of_gort(path):
            assert ORDER.index(imported) < ORDER.index(name), f"{name} imports {imported}"


def imports_of_gort(path: Path) -> set[str]:
    """Modules of gort that a module imports, names of ORDER, type-only imports left out."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body:
        for inner in ast.walk(node) if not is_for_types(node) else ():
            if isinstance(inner, ast.ImportFrom) and (inner.module or "").startswith("gort"):
                base = (inner.module or "").removeprefix("gort").removeprefix(".")
                for alias in inner.names:
                    below = f"{base}.{alias.name}".removeprefix(".")
                    found.add(below if below in ORDER else base or "__init__")
            elif isinstance(inner, ast.Import):
                for alias in inner.names:
                    if alias.name.split(".")[0] == "gort":
                        found.add(alias.name.removeprefix("gort").removeprefix(".") or "__init__")
    packages = {name.removesuffix(".__init__") for name in ORDER if name.endswith(".__init__")}
    return {f"{name}.__init__" if name in packages else name for name in found}


def is_for_types(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=named)
def test_tests_wait_for_states_not_for_time(path):
    if path.name in SLEEPERS:
        return
    lines = path.read_text().splitlines()
    waits = [
        f"{path.name}:{number}: {line.strip()}"
        for number, line in enumerate(lines, 1)
        if re.match(r"    time\.sleep\(", line) and "# " not in line
    ]
    assert waits == [], "a test slept to wait; use eventually(), or say why in a comment"


def test_documents_are_there_and_the_readme_is_one_screen():
    for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"):
        assert (ROOT / f"{name}.md").read_text().startswith("# ")
    assert (ROOT / "LICENSE").exists()
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_documents_point_at_files_that_exist():
    broken = []
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            if not (document.parent / target).exists():
                broken.append(f"{named(document)}: {target}")
    assert broken == []


def test_version_stands_in_cargo_toml_only():
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)
    assert version
    assert f'version = "{version[1]}"' not in (ROOT / "pyproject.toml").read_text()
    for path in PACKAGE.rglob("*.py"):
        assert version[1] not in path.read_text(), named(path)
