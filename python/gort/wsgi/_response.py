"""The response to one request: PEP 3333's start_response, write() and iteration, as HTTP/1.1.

Invariants: no header or status reaches the wire that could end a line; a response whose body is
not what it said, or whose application failed in its middle, is followed by the connection's end
and never by bytes that a client could take for more of it.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time

from gort import _core
from gort._typing import TYPE_CHECKING
from gort.wsgi._head import TOKEN
from gort.wsgi._log import http_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from gort.wsgi._body import Body
    from gort.wsgi._conn import Conn, TlsConn

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["FileWrapper", "Response", "Shared"]

STATUS = re.compile(r"[2-9][0-9][0-9] [\t\x20-\x7e\x80-\xff]*+")
NAME = re.compile(rf"{TOKEN}++")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*+")
#: They are the server's: RFC 9110, 7.6.1.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
     "te", "trailer", "trailers", "transfer-encoding", "upgrade")
)  # fmt: skip
#: What of the server's own a header replaces; and Content-Length, whose line is made later.
HAS_DATE, HAS_SERVER, IS_LENGTH = 1, 2, 4
FLAGS = {"date": HAS_DATE, "server": HAS_SERVER}
#: Status lines that were looked at: the first ones, which are those that come again and again.
LINES: dict[str, bytes] = {}
LINES_MOST = 500
#: A body of so many bytes is copied behind the head, which takes less than a part of its own.
COPIED = 16384

#: How the end of the body is told.
NONE, LENGTH, CHUNKS, CLOSE = range(4)


class FileWrapper:
    """wsgi.file_wrapper: a file as the body of a response, sent by the kernel where that can be.

    Args:
        filelike: with a read(size); a close() is called at the response's end.
        block_size: bytes of one read, where it is read.
    """

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        """Keep both."""
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        """Give the file's blocks."""
        return iter(lambda: self.filelike.read(self.block_size), b"")

    def region(self) -> tuple[int, int, int] | None:
        """Give (descriptor, first byte, bytes) of a regular file, None of anything else.

        Only of objects that give what is in the file: gzip.GzipFile has a descriptor, too.
        """
        if type(self.filelike) not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
            return None
        try:
            number = self.filelike.fileno()
            about = os.fstat(number)
            at = self.filelike.tell()
        except (AttributeError, OSError, ValueError):
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        return number, at, max(about.st_size - at, 0)


class Shared:
    """What the responses of a server share: whether they are the last, and its own headers."""

    __slots__ = ("_at", "_own", "_server", "is_draining")

    def __init__(self, server_name: str) -> None:
        """Begin with no second."""
        self._at = 0.0
        self._own = b""
        self._server = f"Server: {server_name}\r\n" if server_name else ""
        #: whether connections end after what is under way
        self.is_draining = False

    def own(self, flags: int) -> bytes:
        """Give the header lines that the application left out, by HAS_DATE and HAS_SERVER.

        Date is made once a second.
        """
        now = time.time()
        if flags or not 0 <= now - self._at < 1:
            server = "" if flags & HAS_SERVER else self._server
            date = "" if flags & HAS_DATE else f"Date: {http_date(now)}\r\n"
            own = (server + date).encode()
            if flags:
                return own
            self._own, self._at = own, float(int(now))
        return self._own


class Response:
    """What becomes of one request."""

    # Most of them end as they began: what follows is the class's, and costs a response nothing.
    _status: str | None = None
    _line = b""
    _headers: list[tuple[str, str]] | None = None
    _lines = b""
    _flags = 0
    _is_length_given = False
    _length: int | None = None
    _framing = NONE
    _left = 0
    #: of the request: what is unread of it may end the connection, too
    body: Body | None = None
    #: whether the head is on its way
    is_started = False
    #: whether the client was gone, or too slow, when something was to be sent
    is_broken = False
    #: bytes of the body
    sent = 0

    def __init__(
        self, conn: Conn | TlsConn, shared: Shared, method: str, is_http11: bool, keep_alive: bool
    ) -> None:
        """Nothing is sent yet.

        Args:
            conn: where it goes.
            shared: of the server.
            method: of the request.
            is_http11: or of HTTP/1.0.
            keep_alive: whether the connection may go on afterwards.
        """
        self._conn = conn
        self._shared = shared
        self._is_head = method == "HEAD"
        self._is_http11 = is_http11
        self.keep_alive = keep_alive

    @property
    def status(self) -> str:
        """The status line, without the version."""
        return self._status or "-"

    @property
    def ends_with_connection(self) -> bool:
        """Whether the client takes the connection's end for the body's."""
        return self._framing == CLOSE

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What the application gave."""
        return self._headers or []

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
        /,
    ) -> Callable[[bytes], None]:
        """PEP 3333's start_response.

        Raises:
            TypeError, ValueError: status or headers are no status and headers, or not an
                application's to set.
            RuntimeError: it was called before, and exc_info was not given.
            BaseException: that of exc_info, when the head was sent already.
        """
        if exc_info is not None:
            try:
                if self.is_started and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle with this frame otherwise
        elif self._status is not None:
            raise RuntimeError("start_response was called twice without exc_info")
        if type(status) is not str:
            raise TypeError(f"status must be a str, not {type(status).__name__}")
        self._line = LINES.get(status) or _status_line(status)
        found = _core._http_lines(headers) or _looked_at(headers)
        self._lines, self._length, self._flags = found
        self._is_length_given = found[1] is not None
        self._status, self._headers = status, list(headers)
        return self.write

    def write(self, data: bytes, /) -> None:
        """Park until these bytes of the body are with the kernel: what PEP 3333 returns to call.

        Raises:
            RuntimeError: start_response was not called.
            ValueError: they are more than Content-Length says.
            OSError: the client is gone, or too slow.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"a body is made of bytes, not {type(data).__name__}")
        if data:
            self._send(data)

    def say(self, line: str) -> None:
        """Send a response of the server's own, where nothing was sent; the connection ends."""
        self.keep_alive = False
        self._status = None
        self.start(line, [("Content-Type", "text/plain; charset=utf-8")])
        self.answer([line.encode("latin-1") + b"\n"])

    def answer(self, result: Iterable[bytes]) -> None:
        """Send what an application returned; the caller closes it. Parks.

        Raises:
            OSError: the client is gone, or too slow.
            BaseException: of the application.
        """
        kind = type(result)
        if (kind is list or kind is tuple) and not self.is_started:
            self._send_all(result)  # type: ignore[arg-type]
            return
        if isinstance(result, FileWrapper) and self._conn.has_sendfile:
            region = result.region()
            if region is not None:
                self._send_file(*region)
                return
        for data in result:
            self.write(data)
            if self.is_started and self._framing == NONE:
                return  # nobody will see the rest
        self._end()

    def _send_all(self, parts: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a body that is there already: its length is known, and one call does it."""
        for part in parts:
            if not isinstance(part, bytes):
                raise TypeError(f"a body is made of bytes, not {type(part).__name__}")
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        count = len(data)
        if self._length is None and (count or not self._is_head):
            self._length = count
        head = self._head()
        if self._framing == LENGTH and self._left == count:
            self._left = 0
            try:
                if count > COPIED:
                    self._conn.send([head, data])
                elif self.keep_alive:
                    self._conn.send([head + data])
                else:
                    self._conn.send_last(head + data)
            except OSError:
                self._break()
                raise
            self.sent = count
        else:
            self._send(data, head)
            self._end()

    def _put(self, parts: list[bytes]) -> None:
        if self.is_broken:  # an application went on: the client has half of something
            raise BrokenPipeError("the client is gone, or was too slow")
        try:
            self._conn.send(parts)
        except OSError:
            self._break()
            raise

    def _break(self) -> None:
        self.is_broken = True
        self.keep_alive = False

    def _send(self, data: bytes, head: bytes = b"") -> None:
        """Send some of the body, after the head if that is not sent."""
        if not self.is_started:
            head = self._head()
        framing = self._framing
        parts = [head] if head else []
        surplus = False
        if framing == LENGTH:
            surplus = len(data) > self._left
            data = data[: self._left] if surplus else data
            self._left -= len(data)
            parts.append(data)
        elif framing == CHUNKS:
            parts += (b"%x\r\n" % len(data), data, b"\r\n")
        elif framing == CLOSE:
            parts.append(data)
        else:
            data = b""
        if parts:
            self._put(parts)
        self.sent += len(data)
        if surplus:
            raise ValueError(f"the body is longer than its Content-Length, {self._length}")

    def _send_file(self, file: int, start: int, count: int) -> None:
        """Send a file, as much of it as Content-Length says."""
        if self._length is None:
            self._length = count
        if not self.is_started:
            self._put([self._head()])
        if self._framing == NONE:
            return
        if self._framing == LENGTH:
            try:
                wanted = min(self._left, count)
                sent = self._conn.send_file(file, start, wanted)  # type: ignore[union-attr]
            except OSError:
                self._break()
                raise
            self._left -= sent
            self.sent += sent
        else:  # write() was used before: there is no length to go by
            while count > 0 and (data := os.pread(file, min(count, 65536), start)):
                self._send(data)
                start += len(data)
                count -= len(data)
        self._end()

    def _end(self) -> None:
        """Send what ends the body."""
        if not self.is_started:
            if self._length is None and not self._is_head:
                self._length = 0
            self._put([self._head()])
        if self._framing == CHUNKS:
            self._put([b"0\r\n\r\n"])
        elif self._framing == LENGTH and self._left:
            raise ValueError(
                f"the body is shorter than its Content-Length, {self._length}, by {self._left}"
            )

    def _head(self) -> bytes:
        """Give status line and headers; from here on there is no way back."""
        status = self._status
        if status is None:
            raise RuntimeError("the application did not call start_response")
        length = self._length
        framing = b"" if length is None else b"Content-Length: %d\r\n" % length
        if status.startswith(("204", "304")):
            self._framing = NONE
            if status[0] == "2" or not self._is_length_given:
                framing = b""
        elif self._is_head:
            self._framing = NONE
        elif length is not None:
            self._framing, self._left = LENGTH, length
        elif self._is_http11:
            self._framing, framing = CHUNKS, b"Transfer-Encoding: chunked\r\n"
        else:
            self._framing, self.keep_alive = CLOSE, False
        body, shared = self.body, self._shared
        if self.keep_alive and (shared.is_draining or (body is not None and body.is_lost)):
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif not self._is_http11:
            framing += b"Connection: keep-alive\r\n"
        own = shared.own(self._flags)
        head = b"".join((self._line, own, self._lines, framing, b"\r\n"))
        self.is_started = True
        return head


def _status_line(status: str) -> bytes:
    """Look at a status, give the line, and remember it.

    Raises:
        ValueError: it is none, or not an application's.
    """
    if not STATUS.fullmatch(status):
        raise ValueError(f"status must be a code, 200 or more, and words: {status[:80]!r}")
    line = f"HTTP/1.1 {status}\r\n".encode("latin-1")
    if len(LINES) < LINES_MOST and len(line) < 100:
        LINES[status] = line
    return line


def _looked_at(headers: list[tuple[str, str]]) -> tuple[bytes, int | None, int]:
    """Give an application's headers as lines, but for Content-Length, which is given as a number.

    Those without faults are what `_core._http_lines` gives, unless they are not of ASCII.

    Returns:
        The lines, the length, and which of HAS_DATE and HAS_SERVER are among them.

    Raises:
        TypeError, ValueError: they are no headers, or not its to set.
    """
    if not isinstance(headers, list):
        raise TypeError(f"headers must be a list, not {type(headers).__name__}")
    length = None
    lines = ""
    flags = 0
    for header in headers:
        if type(header) is not tuple or len(header) != 2:
            raise TypeError(f"a header is a tuple of two str: {header!r}")
        line, flag = _line(*header)
        if flag == IS_LENGTH:
            if length is not None:
                raise ValueError("two headers Content-Length")
            length = int(line)
        else:
            lines += line
            flags |= flag
    return lines.encode("latin-1"), length, flags


def _line(name: str, value: str) -> tuple[str, int]:
    """Look at a header; give its line and what it is, or the length."""
    if type(name) is not str or type(value) is not str:
        raise TypeError(f"a header is a tuple of two str: {name!r}, {value!r}")
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no header's name")
    if not VALUE.fullmatch(value):
        raise ValueError(f"header {name}: {value[:80]!r} has characters that none may have")
    known = name.lower()
    if known in HOP_BY_HOP:
        raise ValueError(f"header {name} is the server's, not an application's")
    if known == "content-length":
        if not (value.isascii() and value.isdigit()) or len(value) > 18:
            raise ValueError(f"Content-Length: {value[:80]!r}")
        return value, IS_LENGTH
    return f"{name}: {value}\r\n", FLAGS.get(known, 0)
