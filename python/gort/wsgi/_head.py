"""The head of a request: request line and headers, read as RFC 9112 has them and no otherwise.

One regular expression has to match the whole head, so nothing in it is guessed at: a bare CR or LF,
NUL, white space before a colon, a folded line, an odd version are refused, not mended. What is
wrong is looked for only when something is. The verdict depends on the bytes alone, not on how they
were cut into segments: of two faults the one that ends first counts, as it would have been seen
first (docs/design/010-http-parsing.md).

Heads without anything unusual are read by `_core._http_request` before they come here; what that
takes has to be taken here, with the same environ.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from gort._typing import TYPE_CHECKING
from gort.wsgi._settings import RequestError

if TYPE_CHECKING:
    from typing import Any

    from gort.wsgi._settings import Settings

__all__ = [
    "CHUNKED", "EXPECTS", "HAS_BODY", "IS_ASTERISK", "IS_HTTP11", "KEEPS", "SHIFT", "fault_of_part",
    "length_of", "parse",
]  # fmt: skip

#: What a server has to know of a request, but for what the environ says: bits of a number, which
#: from bit SHIFT on is how many bytes the head has. The compiled part knows the first three.
IS_HTTP11, KEEPS, HAS_BODY, EXPECTS, IS_ASTERISK = 1, 2, 4, 8, 16
SHIFT = 5
#: The length of a body that says itself where it ends.
CHUNKED = -1
#: More digits than any length a machine can hold.
LENGTH_DIGITS = 18

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # noqa: S105 - RFC 9110's word
LINE = re.compile(rf"({TOKEN}++) ([\x21\x22\x24-\x7e]++) HTTP/([0-9])\.([0-9])\r\n")
FIELDS = re.compile(rf"(?:{TOKEN}++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
BARE_LF = re.compile(rb"(?<!\r)\n")
HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]++\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::[0-9]*+)?"
)
ABSOLUTE = re.compile(r"(?i:https?)://([^/?]++)([^?]*+)(.*+)")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# Header name to environ key; "" for those that are left out. Names as clients write them are few,
# so their keys are made once; a client that makes names up fills it to KEYS_MOST and no further.
KEYS_MOST = 500
KEYS: dict[str, str] = {}


def fault_of_part(data: bytes, settings: Settings, known: int = 0) -> RequestError | None:
    """Say what is wrong with a head already, whose end has not come, or is not looked for.

    Args:
        data: what is there of it.
        settings: the limits.
        known: so many bytes of it were looked at before.
    """
    faults = []
    if len(data) > settings.max_header_bytes:
        reason = f"more than {settings.max_header_bytes} bytes of headers"
        faults.append((settings.max_header_bytes + 1, 431, reason))
    most = settings.max_request_line + 2
    if len(data) >= most and data.find(b"\r\n", 0, most) < 0:
        faults.append((most, 414, f"request line of more than {most - 2} bytes"))
    if bare := BARE_LF.search(data, known):
        faults.append((bare.end(), 400, "LF without CR"))
    return RequestError(*min(faults)[1:]) if faults else None


def parse(data: bytes, end: int, environ: dict[str, Any], settings: Settings) -> int:
    """Read the head `data[:end]`, which ends with the empty line, into `environ`. Never parks.

    Returns:
        IS_HTTP11, KEEPS and so on, and `end`.

    Raises:
        RequestError: it is not what RFC 9112 and the limits allow.
    """
    text = data[:end].decode("latin-1")
    line = LINE.match(text)
    if (
        line is None
        or end > settings.max_header_bytes
        or line.end() - 2 > settings.max_request_line
        or not FIELDS.fullmatch(text, line.end())
    ):
        raise fault_of_part(data[:end], settings) or _fault(text, line)
    method, target, major, minor = line.groups()
    if major != "1":
        raise RequestError(505, f"HTTP/{major}.{minor}")
    is_http11 = minor != "0"
    if line.end() + 2 < end:
        _fields(text[line.end() : -4].split("\r\n"), environ, settings.max_header_count)
    environ["REQUEST_METHOD"] = method
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if is_http11 else "HTTP/1.0"
    _target(method, target, is_http11, environ)
    found = end << SHIFT | IS_HTTP11 * is_http11 | IS_ASTERISK * (target == "*")
    found |= HAS_BODY * _has_body(is_http11, environ, settings.max_body)
    return found | _connection(is_http11, found & HAS_BODY != 0, environ)


def _fault(text: str, line: re.Match[str] | None) -> RequestError:
    """Say what is wrong with a head that is no head."""
    if line is None:
        shown = text[: text.find("\r\n")]
        return RequestError(400, f"request line {shown[:80]!r}")
    for field in text[line.end() : -4].split("\r\n"):
        if field[:1] in (" ", "\t"):
            return RequestError(400, "folded header line")
        if not FIELDS.fullmatch(f"{field}\r\n\r\n"):
            return RequestError(400, f"header line {field[:80]!r}")
    return RequestError(400, "headers")


def _fields(lines: list[str], environ: dict[str, Any], most: int) -> None:
    """Put header lines into `environ`."""
    if len(lines) > most:
        raise RequestError(431, f"{len(lines)} headers, {most} allowed")
    keys = KEYS
    for line in lines:
        name, _, value = line.partition(":")
        key = keys.get(name)
        if key is None:
            key = _key(name)
        if not key:
            continue
        if key in environ:
            if key in ("HTTP_HOST", "CONTENT_LENGTH"):
                raise RequestError(400, f"two headers {name}")
            between = "; " if key == "HTTP_COOKIE" else ","
            environ[key] += between + value.strip(" \t")
        else:
            environ[key] = value.strip(" \t")


def _key(name: str) -> str:
    """Give the environ's key of a header, and remember it."""
    key = name.upper().replace("-", "_")
    if "_" in name or key == "PROXY":
        # X_Real_IP would be taken for X-Real-IP, and HTTP_PROXY for a variable of the process.
        key = ""
    elif key not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
        key = f"HTTP_{key}"
    if len(KEYS) < KEYS_MOST and len(name) < 64:
        KEYS[name] = key
    return key


def _target(method: str, target: str, is_http11: bool, environ: dict[str, Any]) -> None:
    """Take the target apart, and look at Host."""
    host = environ.get("HTTP_HOST")
    if host is None:
        if is_http11:
            raise RequestError(400, "no Host")
    elif not HOST.fullmatch(host):
        raise RequestError(400, f"Host {host[:80]!r}")
    if method == "CONNECT":
        raise RequestError(501, "CONNECT")
    if target[0] == "/":
        path, _, query = target.partition("?")
    elif target == "*":
        if method != "OPTIONS":
            raise RequestError(400, f"{method} *")
        path = query = ""
    else:
        absolute = ABSOLUTE.fullmatch(target)
        if absolute is None or not HOST.fullmatch(absolute[1]) or absolute[1][0] == ":":
            raise RequestError(400, f"target {target[:80]!r}")
        environ["HTTP_HOST"] = absolute[1]  # which goes before the header: RFC 9112, 3.2.2
        path, query = absolute[2] or "/", absolute[3][1:]
    if "%" in path:
        if BAD_ESCAPE.search(path):
            raise RequestError(400, f"target {target[:80]!r}")
        path = unquote(path, "latin-1")
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["REQUEST_URI"] = environ["RAW_URI"] = target


def length_of(environ: dict[str, Any]) -> int:
    """Give the length of a body in bytes, or CHUNKED, of a head that is in order."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return CHUNKED
    return int(environ.get("CONTENT_LENGTH", 0))


def _has_body(is_http11: bool, environ: dict[str, Any], most: int | None) -> bool:
    """Tell whether `length_of` says where a body ends, and whether it may.

    RFC 9112, 6.3; what it lets a server refuse is refused.
    """
    codings = environ.get("HTTP_TRANSFER_ENCODING")
    length = environ.get("CONTENT_LENGTH")
    if codings is not None:
        if length is not None:
            raise RequestError(400, "Transfer-Encoding and Content-Length")
        if not is_http11:
            raise RequestError(400, "Transfer-Encoding in HTTP/1.0")
        names = [name.strip(" \t").lower() for name in codings.split(",")]
        if names == ["chunked"]:
            return True
        if names[-1] != "chunked" or "chunked" in names[:-1]:
            raise RequestError(400, f"Transfer-Encoding {codings[:80]!r}")
        raise RequestError(501, f"Transfer-Encoding {codings[:80]!r}")
    if length is None:
        return False
    if not (length.isascii() and length.isdigit()):
        raise RequestError(400, f"Content-Length {length[:80]!r}")
    if len(length) > LENGTH_DIGITS or (most is not None and int(length) > most):
        raise RequestError(413, f"Content-Length {length[:80]}")
    return True


def _connection(is_http11: bool, has_body: bool, environ: dict[str, Any]) -> int:
    """Read what the client wants of the connection: KEEPS, EXPECTS."""
    keeps = is_http11
    if (options := environ.get("HTTP_CONNECTION")) is not None:
        names = {name.strip(" \t") for name in options.lower().split(",")}
        keeps = "close" not in names and (is_http11 or "keep-alive" in names)
    expects = False
    if is_http11 and (expected := environ.get("HTTP_EXPECT")) is not None:
        if expected.lower() != "100-continue":
            raise RequestError(417, f"Expect {expected[:80]!r}")
        expects = has_body and length_of(environ) != 0
    return KEEPS * keeps | EXPECTS * expects
