"""/metrics and /health as a WSGI application."""

from __future__ import annotations

import json

from gort._health import health
from gort._typing import TYPE_CHECKING
from gort.metrics._prometheus import CONTENT_TYPE, prometheus_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["app"]

_TEXT = "text/plain; charset=utf-8"


def app(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    r"""Answer /metrics (Prometheus' text) and /health as a WSGI application. Never blocks for long.

    /health gives what `gort.health()` says as JSON, with status 200 or, where a limit is passed,
    503. What is in front of the path does not matter, so that it can be mounted anywhere, and who
    may see it is up to who mounts it: `gort.wsgi.serve(gort.metrics.app, "127.0.0.1", 9100)`.

    Args:
        environ: the request, as PEP 3333 has it.
        start_response: called with the status and the headers.

    Example:
        >>> import gort.metrics
        >>> request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/other"}
        >>> list(gort.metrics.app(request, lambda status, headers: print(status)))
        404 Not Found
        [b'gort: /metrics and /health are here\n']
    """
    method = environ.get("REQUEST_METHOD", "GET")
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).rstrip("/")
    kind, extra = _TEXT, []
    if method not in ("GET", "HEAD"):
        status, text = "405 Method Not Allowed", "gort: GET and HEAD only\n"
        extra = [("Allow", "GET, HEAD")]
    elif path.endswith("/metrics"):
        status, kind, text = "200 OK", CONTENT_TYPE, prometheus_text()
    elif path.endswith("/health"):
        found = health()
        status = "200 OK" if found.ok else "503 Service Unavailable"
        kind, text = "application/json", f"{json.dumps(found.as_dict())}\n"
    else:
        status, text = "404 Not Found", "gort: /metrics and /health are here\n"
    body = text.encode()
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(status, [*headers, ("Cache-Control", "no-store"), *extra])
    return [] if method == "HEAD" else [body]
