"""What /debug/pprof/ answers, as Go's net/http/pprof does; no sockets are in here.

A request is a method, a path, a query and a body; the answer a status, headers and bytes. Whoever
serves it says how to wait, and learns with that whether the client has gone.
"""

from __future__ import annotations

import html
import io
import math
import re
import sys
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from gort import trace
from gort._dump import function_name, printable, records
from gort._typing import TYPE_CHECKING
from gort.pprof import _cpu, _heap
from gort.pprof._model import delta
from gort.pprof._profiles import lookup, profiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from gort.pprof._profiles import Profile

__all__ = ["PREFIX", "Answer", "answer"]

PREFIX = "/debug/pprof/"
_TEXT = "text/plain; charset=utf-8"
_LARGEST = (1 << 63) - 1
_DELTAS = frozenset(
    ("allocs", "block", "goroutineleak", "goroutine", "heap", "mutex", "threadcreate")
)
_DUMP = " Use debug=2 as a query parameter to export in the same format as an unrecovered panic."
_DESCRIPTIONS = {
    "allocs": "Memory that was allocated, by where; what tracemalloc knows of it.",
    "block": "Stack traces that led to blocking on synchronization primitives; "
    "gort.pprof.set_block_profile_rate begins it",
    "cmdline": "The command line invocation of the current program",
    "goroutine": f"Stack traces of all current goroutines.{_DUMP}",
    "goroutineleak": f"Stack traces of all leaked goroutines.{_DUMP}",
    "heap": "Memory of live objects, by where it was allocated. You can specify the gc GET "
    "parameter to run GC before taking the profile.",
    "mutex": "Stack traces of holders of contended mutexes; "
    "gort.pprof.set_mutex_profile_fraction begins it",
    "profile": "CPU profile. You can specify the duration in the seconds GET parameter. After you "
    "get the profile file, use the go tool pprof command to investigate the profile.",
    "symbol": "Maps given program counters to function names. Counters can be specified in a GET "
    "raw query or POST body, multiple counters are separated by '+'.",
    "threadcreate": "The OS threads of the process, by name",
    "trace": "A trace of execution of the current program. You can specify the duration in the "
    "seconds GET parameter. After you get the trace file, use the go tool trace command to "
    "investigate the trace.",
}
#: Served beside the profiles that `lookup` finds.
_OTHERS = ("cmdline", "profile", "symbol", "trace")

_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_UNFIT = re.compile(r"[^ !#-\[\]-~]")
#: Seconds that anybody waits, at most: what the time-out of a socket holds.
_LONGEST = 2_000_000


class Answer(NamedTuple):
    """What is sent back; `body` is all of it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Gone(Exception):
    """The client has gone: nobody waits for the answer."""


def _integer(words: str) -> tuple[int, bool]:
    """Read a number as Go's strconv.Atoi: it, clipped to 64 bits, and whether it is one."""
    if _NUMBER.fullmatch(words) is None:
        return 0, False
    number = int(words) if len(words) < 25 else _LARGEST * (-1 if words[0] == "-" else 1) * 2
    clipped = min(max(number, -_LARGEST - 1), _LARGEST)
    return clipped, clipped == number


def _error(status: int, words: str, **headers: str) -> Answer:
    """Give an error that pprof shows."""
    head = {"Content-Type": _TEXT, "X-Content-Type-Options": "nosniff", "X-Go-Pprof": "1"}
    return Answer(status, head | headers, f"{words}\n".encode())


def _plain(status: int, words: str, **headers: str) -> Answer:
    """Give an error as Go's http.Error does."""
    head = {"Content-Type": _TEXT, "X-Content-Type-Options": "nosniff"}
    return Answer(status, head | headers, f"{words}\n".encode())


def _file(name: str, body: bytes) -> Answer:
    """Give a profile."""
    head = {
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{_UNFIT.sub("_", name)}"',
    }
    return Answer(200, head, body)


def answer(
    method: str, path: str, query: str, body: bytes, wait: Callable[[float], None]
) -> Answer:
    """Answer a request.

    Args:
        method: GET, HEAD or POST; others are refused.
        path: from `/debug/pprof/` on.
        query: what stands behind the question mark.
        body: of a POST.
        wait: waits for so many seconds; raises `Gone` when the client has gone.
    """
    if path == PREFIX.rstrip("/"):
        return _plain(301, "Moved Permanently", Location=PREFIX)
    if not path.startswith(PREFIX):
        return _plain(404, "404 page not found")
    name = path.removeprefix(PREFIX)
    allowed = ("GET", "HEAD", "POST") if name == "symbol" else ("GET", "HEAD")
    if method not in allowed:
        return _plain(405, "Method Not Allowed", Allow=", ".join(allowed))
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(key, value)
    if name == "":
        return _index()
    if name == "cmdline":
        return _text("\0".join(sys.orig_argv).encode("utf-8", "surrogateescape"))
    if name == "symbol":
        return _symbol(body.decode("latin-1") if method == "POST" else query)
    if name == "profile":
        return _cpu_profile(values, wait)
    if name == "trace":
        return _trace(values, wait)
    profile = lookup(name)
    if profile is None:
        return _error(404, "Unknown profile")
    if values.get("seconds"):
        return _delta(profile, values, wait)
    if name == "heap" and _integer(values.get("gc", ""))[0] > 0:
        _heap.collect()
    debug = _integer(values.get("debug", ""))[0]
    written = profile._bytes(debug)
    return _text(written) if debug != 0 else _file(name, written)


def _text(body: bytes) -> Answer:
    """Give a text."""
    return Answer(200, {"Content-Type": _TEXT, "X-Content-Type-Options": "nosniff"}, body)


def _delta(profile: Profile, values: dict[str, str], wait: Callable[[float], None]) -> Answer:
    """What changed in some seconds."""
    seconds, is_number = _integer(values["seconds"])
    if not is_number or seconds <= 0:
        return _error(400, 'invalid value for "seconds" - must be a positive integer')
    if profile.name not in _DELTAS:
        return _error(400, '"seconds" parameter is not supported for this profile type')
    if _integer(values.get("debug", ""))[0] != 0:
        return _error(400, "seconds and debug params are incompatible")
    before = profile._stamped()
    wait(min(seconds, _LONGEST))
    changed = delta(before, profile._stamped())
    return _file(f"{profile.name}-delta", changed.encode())


def _cpu_profile(values: dict[str, str], wait: Callable[[float], None]) -> Answer:
    """What goroutines ran in some seconds."""
    seconds, is_number = _integer(values.get("seconds", ""))
    if not is_number or seconds <= 0:
        seconds = 30
    return _recorded(
        "profile", "CPU profiling", _cpu.start_cpu_profile, _cpu.stop_cpu_profile, seconds, wait
    )


def _trace(values: dict[str, str], wait: Callable[[float], None]) -> Answer:
    """What goroutines did in some seconds."""
    try:
        seconds = float(values.get("seconds", ""))
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < math.inf:
        seconds = 1.0
    return _recorded("trace", "tracing", trace.start, trace.stop, seconds, wait)


def _recorded(
    name: str,
    what: str,
    start: Callable[[io.BytesIO], object],
    stop: Callable[[], object],
    seconds: float,
    wait: Callable[[float], None],
) -> Answer:
    """What is written between a start and a stop, so many seconds apart."""
    file = io.BytesIO()
    try:
        start(file)
    except RuntimeError as error:
        return _error(500, f"Could not enable {what}: {error}")
    try:
        wait(min(seconds, _LONGEST))
    finally:
        stop()
    return _file(name, file.getvalue())


def _symbol(words: str) -> Answer:
    """Names for addresses of functions that goroutines are in right now; no others are kept."""
    lines = ["num_symbols: 1"]
    wanted = []
    for word in words.split("+"):
        try:
            address = int(word, 0)
        except ValueError:
            continue
        if address > 0:
            wanted.append(address)
    names = {
        address: function_name(code, module)
        for record in (records() if wanted else ())
        for address, code, _, module in record.frames()
    }
    lines += [f"{address:#x} {names[address]}" for address in wanted if address in names]
    return _text("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def _index() -> Answer:
    """The page that lists the profiles."""
    entries = [(profile.name, profile.count()) for profile in profiles()]
    entries += [(name, 0) for name in _OTHERS]
    rows, descriptions = [], []
    for name, count in sorted(entries):
        shown = html.escape(printable(name))
        rows.append(
            f"<tr><td>{count}</td><td><a href='{_link(name)}?debug=1'>{shown}</a></td></tr>"
        )
        words = html.escape(_DESCRIPTIONS.get(name, ""))
        descriptions.append(f"<li><div class=profile-name>{shown}: </div> {words}</li>")
    page = _PAGE.format(rows="\n".join(rows), descriptions="\n".join(descriptions))
    head = {
        "Content-Type": "text/html; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    }
    return Answer(200, head, page.encode("utf-8", "backslashreplace"))


def _link(name: str) -> str:
    """A name as the last part of an address."""
    return html.escape(quote(name, safe="", errors="backslashreplace"))


_PAGE = """<html>
<head>
<title>/debug/pprof/</title>
<style>
.profile-name{{
	display:inline-block;
	width:6rem;
}}
</style>
</head>
<body>
/debug/pprof/
<br>
<p>Set debug=1 as a query parameter to export in legacy text format</p>
<br>
Types of profiles available:
<table>
<thead><td>Count</td><td>Profile</td></thead>
{rows}
</table>
<a href="goroutine?debug=2">full goroutine stack dump</a>
<br>
<a href="../gort/">live page</a>
<br>
<p>
Profile Descriptions:
<ul>
{descriptions}
</ul>
</p>
</body>
</html>"""
