"""What /debug/gort/ answers: the live page, and the figures that it and `gort top` show.

No sockets are in here. Figures are asked for with GET. What costs the program something (a CPU
profile) takes a POST, and none of it answers pages of elsewhere: a browser says where a request
comes from (`Sec-Fetch-Site`, `Origin`), by the rules of Go's net/http.CrossOriginProtection.
"""

from __future__ import annotations

import json
import os
import secrets
from functools import cache
from urllib.parse import parse_qsl, urlsplit

from gort._core import num_goroutine
from gort._graphdraw import Drawing
from gort._graphviews import svg
from gort._typing import TYPE_CHECKING
from gort.pprof._cpu import start_taking, stop_cpu_profile
from gort.pprof._http import Answer
from gort.pprof._state import MOST, flames, goroutines, state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from gort.pprof._model import Data

__all__ = ["ASKED", "PREFIX", "answer"]

PREFIX = "/debug/gort/"
#: The headers of a request that matter here.
ASKED = ("Host", "Origin", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site")
#: Seconds that a CPU profile may take.
_LONGEST = 300.0
_PAGE = os.path.join(os.path.dirname(__file__), "_page")
#: In this order: a script uses those before it.
_SCRIPTS = ("figures.js", "charts.js", "goroutines.js", "flame.js", "live.js")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: `require-trusted-types-for` has the browser refuse every text that would become markup.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self';"
    " img-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)


def answer(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    wait: Callable[[float], None],
) -> Answer:
    """Answer a request.

    Args:
        method: GET or HEAD, POST for a CPU profile; others are refused.
        path: from `/debug/gort` on.
        query: what stands behind the question mark.
        headers: those of `ASKED` that the request has.
        wait: waits for so many seconds; raises `Gone` when the client has gone.
    """
    if path == PREFIX.rstrip("/"):
        return _text(301, "Moved Permanently", Location=f"gort/?{query}" if query else "gort/")
    name = path.removeprefix(PREFIX)
    if not path.startswith(PREFIX) or name not in _NAMES:
        return _text(404, "404 page not found")
    allowed = ("POST",) if name == "profile.json" else ("GET", "HEAD")
    if method not in allowed:
        return _text(405, "Method Not Allowed", Allow=", ".join(allowed))
    if _is_foreign(method, name, headers):
        return _text(403, "gort: a page of another origin asks")
    if name == "":
        return _page()
    values = dict(parse_qsl(query, keep_blank_values=True))
    if name == "profile.json":
        return _profile(values, wait)
    if name == "concurrency.svg":
        return _graph()
    return _json(_FIGURES[name](values))


def _is_foreign(method: str, name: str, headers: Mapping[str, str]) -> bool:
    """Whether a page of somewhere else asks; what is no browser sends none of these headers."""
    site = headers.get("Sec-Fetch-Site", "")
    if site in ("same-origin", "none"):
        return False
    if site:  # following a link to the page shows it to who follows, and to nobody else
        is_visit = headers.get("Sec-Fetch-Mode") == "navigate"
        return not (name == "" and is_visit and headers.get("Sec-Fetch-Dest") == "document")
    origin = headers.get("Origin", "")
    if not origin or method in ("GET", "HEAD"):
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
    except ValueError:
        return True


def _text(status: int, words: str, **headers: str) -> Answer:
    """Give a short text."""
    head = {"Content-Type": "text/plain; charset=utf-8", **_SAFE, **headers}
    return Answer(status, head, f"{words}\n".encode("utf-8", "backslashreplace"))


def _json(value: object) -> Answer:
    """Give a value as JSON: ASCII only, so that no name can be ill-formed UTF-8."""
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    return Answer(200, {"Content-Type": "application/json", **_SAFE}, body)


def _goroutines(values: Mapping[str, str]) -> dict[str, Any]:
    """The goroutines that match `q`, if there are at most `most` in all."""
    most = values.get("most", "")
    is_number = most.isascii() and most.isdigit() and len(most) < 10
    return goroutines(values.get("q", "")[:200], int(most) if is_number else MOST)


_FIGURES: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "goroutines.json": _goroutines,
    "state.json": lambda _: state(),
}


def _graph() -> Answer:
    """The graph of who starts and waits for whom: as recorded, or as it is now."""
    count = num_goroutine()
    if count > MOST:
        drawing = Drawing()
        drawing.add(f"{count} goroutines are too many for a picture")
        picture = drawing.svg()
    else:
        picture = svg()
    return Answer(200, {"Content-Type": "image/svg+xml", **_SAFE}, picture.encode())


_NAMES = ("", *_FIGURES, "concurrency.svg", "profile.json")


def _profile(values: Mapping[str, str], wait: Callable[[float], None]) -> Answer:
    """A CPU profile of some seconds, for a flame graph."""
    try:
        seconds = float(values.get("seconds", "5"))
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds <= _LONGEST:
        return _text(400, f"seconds is a number above 0 and up to {_LONGEST:.0f}")
    taken: list[Data] = []
    try:
        start_taking(taken.append)
    except RuntimeError as error:
        return _text(409, f"Could not enable CPU profiling: {error}")
    try:
        wait(seconds)
    finally:
        stop_cpu_profile()
    if not taken:
        return _text(409, "Somebody else has ended the CPU profile")
    return _json(flames(taken[0]))


@cache
def _read(name: str) -> str:
    """A file of the page."""
    with open(os.path.join(_PAGE, name), encoding="utf-8") as file:
        return file.read()


def _page() -> Answer:
    """The page: all of it in one document, whose scripts and styles only a nonce lets in."""
    nonce = secrets.token_urlsafe(16)
    scripts = "\n".join(map(_read, _SCRIPTS))
    text = _read("live.html").replace("/* styles */", _read("live.css"))
    text = text.replace("/* scripts */", scripts).replace("NONCE", nonce)
    head = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _POLICY.format(nonce=nonce),
        **_SAFE,
    }
    return Answer(200, head, text.encode())
