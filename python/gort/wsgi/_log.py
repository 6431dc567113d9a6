"""What is logged: a line for each response, and errors with the goroutine they happened in."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import gort
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gort.wsgi._settings import Settings

ACCESS = logging.getLogger("gort.wsgi.access")
MONTHS = (
    "", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Access:
    """One response, for the access log; str() of it is Apache's combined format.

    Attributes:
        environ: of the request; of one that was refused, what was read of it.
        status: as in the status line: "200 OK".
        headers: of the response, as the application gave them.
        sent: bytes of its body.
        seconds: from the head's arrival to the last byte.
        finished: when that was, in seconds since 1970.

    Example:
        >>> from gort.wsgi import Access
        >>> environ = {"REMOTE_ADDR": "10.0.0.1", "REQUEST_METHOD": "GET", "REQUEST_URI": "/"}
        >>> str(Access(environ, "200 OK", [], 5, 0.1, 0))
        '10.0.0.1 - - [01/Jan/1970:00:00:00 +0000] "GET / -" 200 5 "-" "-"'
    """

    environ: dict[str, Any]
    status: str
    headers: list[tuple[str, str]]
    sent: int
    seconds: float
    finished: float

    def __str__(self) -> str:
        """Give the line; what a client sent cannot forge another one."""
        get = self.environ.get
        at = time.gmtime(self.finished)
        when = time.strftime(f"%d/{MONTHS[at.tm_mon]}/%Y:%H:%M:%S +0000", at)
        words = ("REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL")
        request = " ".join(get(word, "-") for word in words)
        return (
            f'{get("REMOTE_ADDR") or "-"} - - [{when}] "{_safe(request)}" {self.status[:3]} '
            f'{self.sent or "-"} "{_safe(get("HTTP_REFERER", "-"))}" '
            f'"{_safe(get("HTTP_USER_AGENT", "-"))}"'
        )


def _safe(text: str) -> str:
    """Escape what ends a quoted string or a line."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)


def access_logger(settings: Settings) -> Callable[[Access], object] | None:
    """Give who is to be called after each response, if anybody."""
    chosen = settings.access_log
    if chosen is True:
        return lambda access: ACCESS.info("%s", access)
    return chosen or None


def log_error(settings: Settings, what: str, environ: dict[str, Any], error: BaseException) -> None:
    """Log an exception of an application with its traceback and the goroutine's number."""
    settings.logger.error(
        "%s in goroutine %s: %s %s",
        what,
        getattr(gort.current(), "id", "-"),
        environ.get("REQUEST_METHOD"),
        _safe(environ.get("REQUEST_URI", "")),
        exc_info=error,
    )


def http_date(seconds: float) -> str:
    """Give a time as the Date header has it, whatever the locale."""
    at = time.gmtime(seconds)
    day, month = DAYS[at.tm_wday], MONTHS[at.tm_mon]
    return time.strftime(f"{day}, %d {month} %Y %H:%M:%S GMT", at)
