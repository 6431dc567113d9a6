"""The body of a request: where it ends, and the object an application reads it from.

Bytes that came behind it stay in the reader: they are the next request's, and of it alone.
"""

from __future__ import annotations

import re
import time

from gort._typing import TYPE_CHECKING
from gort.wsgi._head import CHUNKED, TOKEN
from gort.wsgi._settings import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gort.wsgi._conn import Conn, TlsConn
    from gort.wsgi._settings import Settings

__all__ = ["Body", "Reader"]

#: What is read at once, and what has to come within body_timeout.
STEP = 65536
#: Of a chunk's line with its extensions, and of all these lines and the trailers of a body.
CHUNK_LINE = 4096
CHUNK_LINES = 65536
#: What is read of a body that the application left, so that the connection can be used again.
LEFT_BYTES = 256 * 1024

QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
EXTENSIONS = rf"(?:[\t ]*+;[\t ]*+{TOKEN}++(?:[\t ]*+=[\t ]*+(?:{TOKEN}++|{QUOTED}))?+)*+"
CHUNK = re.compile(rf"([0-9A-Fa-f]{{1,16}}+){EXTENSIONS}".encode("latin-1"))
TRAILER = re.compile(rf"{TOKEN}++:[\t\x20-\x7e\x80-\xff]*+".encode("latin-1"))


class Reader:
    """A connection's bytes that came and are not used up yet."""

    __slots__ = ("conn", "data")

    def __init__(self, conn: Conn | TlsConn) -> None:
        """Begin with none."""
        self.conn = conn
        self.data = b""

    def take(self, count: int) -> bytes:
        """Give up to `count` of the bytes that are there."""
        data = self.data
        self.data = data[count:]
        return data[:count]


class Body:
    """wsgi.input: the body of one request, and nothing behind it.

    Its reads raise RequestError, an OSError, when the body is malformed, too long, too slow or
    not whole; the connection is not used again after that.
    """

    __slots__ = (
        "_at", "_before_first", "_failed", "_left", "_lines", "_most", "_patience", "_read",
        "_reader", "_state", "_step", "_timeout", "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        reader: Reader,
        length: int,
        settings: Settings,
        before_first: Callable[[], None] | None,
    ) -> None:
        """Stand at the body's first byte.

        Args:
            reader: of the connection.
            length: of the body in bytes, or CHUNKED.
            settings: of the server.
            before_first: called before the first wait: it asks the client for the body.
        """
        self._reader = reader
        self._left = max(length, 0)  # of the body, or of the chunk
        self._state = "chunk" if length == CHUNKED else "length"
        self._before_first = before_first
        self._most = settings.max_body
        self._timeout = settings.body_timeout
        self._waiting = b""  # read, and given out up to _at
        self._at = 0
        self._read = 0
        self._lines = 0
        # What is left of the seconds and bytes of the step that is under way.
        self._patience = 0.0
        self._step = 0
        self._failed: RequestError | None = None

    # What an application calls.

    def read(self, size: int | None = -1, /) -> bytes:
        """Park until `size` bytes are there, or the body ends; -1 or None: all of it."""
        wanted = -1 if size is None or size < 0 else size
        at, count = self._at, len(self._waiting) - self._at
        if 0 <= wanted <= count:
            self._at = at + wanted
            return self._waiting[at : self._at]
        parts = [self._waiting[at:]] if count else []
        self._waiting, self._at = b"", 0
        try:
            while wanted < 0 or count < wanted:
                part = self._more(STEP if wanted < 0 else min(wanted - count, STEP))
                if not part:
                    break
                parts.append(part)
                count += len(part)
        except BaseException:
            self._waiting = b"".join(parts)
            raise
        return b"".join(parts)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Park until a line is there, and give it with its end; `size` bytes of it at most."""
        most = -1 if size is None or size < 0 else size
        parts: list[bytes] = []
        count = 0
        while True:
            at = self._at
            end = self._waiting.find(b"\n", at) + 1
            found = (end or len(self._waiting)) - at
            if end or 0 <= most - count <= found:
                self._at = at + (min(found, most - count) if most >= 0 else found)
                parts.append(self._waiting[at : self._at])
                return b"".join(parts)
            parts.append(self._waiting[at:])
            count += found
            self._waiting, self._at = b"", 0
            try:
                self._waiting = self._more(STEP)
            except BaseException:
                self._waiting = b"".join(parts)
                raise
            if not self._waiting:
                return b"".join(parts)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Park until the body ends, and give its lines; `hint`: about so many bytes at most."""
        lines = []
        count = 0
        while line := self.readline():
            lines.append(line)
            count += len(line)
            if hint is not None and 0 < hint <= count:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        """Give its lines."""
        return iter(self.readline, b"")

    # What the server calls.

    @property
    def is_whole(self) -> bool:
        """Whether all of it was read, so that the next byte is the next request's."""
        return self._state == "end" or (self._state == "length" and not self._left)

    @property
    def is_lost(self) -> bool:
        """Whether, as things stand, the connection has to end because of what is unread."""
        if self._before_first is not None or self._failed is not None:
            return not self.is_whole  # the client may never send what it was not asked for
        return self._state == "length" and self._left > LEFT_BYTES

    def discard(self) -> bool:
        """Read what the application left, if that is little; whether the body is through."""
        if self.is_lost:
            return False
        left = LEFT_BYTES
        try:
            while not self.is_whole and left > 0:
                left -= len(self._more(STEP))
        except OSError:
            return False
        return self.is_whole

    # What both stand on.

    def _more(self, most: int) -> bytes:
        """Give 1 to `most` further bytes of the body, b"" at its end."""
        if self._failed is not None:
            raise self._failed
        if self._before_first is not None and self._reader.data:
            self._before_first = None  # who sends need not be asked
        try:
            data = self._piece(most) if self._state == "length" else self._chunked(most)
        except RequestError as error:
            self._failed = error
            raise
        self._read += len(data)
        return data

    def _piece(self, most: int) -> bytes:
        """Give bytes of the part of which `_left` bytes are to come."""
        wanted = min(most, self._left)
        if not wanted:
            return b""
        data = self._reader.take(wanted) or self._recv(wanted)
        self._left -= len(data)
        return data

    def _chunked(self, most: int) -> bytes:
        if self._state == "end":
            return b""
        if not self._left:
            if self._state == "data":
                self._line_end()
            self._left = self._chunk_size()
            if not self._left:
                self._trailers()
                self._state = "end"
                return b""
            if self._most is not None and self._read + self._left > self._most:
                raise RequestError(413, f"body of more than {self._most} bytes")
            self._state = "data"
        return self._piece(most)

    def _chunk_size(self) -> int:
        line = self._line()
        chunk = CHUNK.fullmatch(line)
        if chunk is None:
            raise RequestError(400, f"chunk {line[:40]!r}")
        return int(chunk[1], 16)

    def _line_end(self) -> None:
        while len(self._reader.data) < 2:
            if self._reader.data not in (b"", b"\r"):
                break
            self._reader.data += self._recv(STEP)
        if self._reader.take(2) != b"\r\n":
            raise RequestError(400, "chunk longer than it said")

    def _trailers(self) -> None:
        while line := self._line():
            if not TRAILER.fullmatch(line):
                raise RequestError(400, f"trailer {line[:40]!r}")

    def _line(self) -> bytes:
        """Give the next line of the framing, without its end."""
        reader = self._reader
        while True:
            # Of the bytes as they come, whatever they came with: the first LF ends the line or
            # is wrong, and the limits are looked at no sooner and no later.
            end = reader.data.find(b"\n")
            count = end + 1 if end >= 0 else len(reader.data)
            if count > CHUNK_LINE or self._lines + count > CHUNK_LINES:
                raise RequestError(400, "chunk lines too long")
            if end >= 0:
                break
            reader.data += self._recv(STEP)
        self._lines += count
        line = reader.take(count)
        if line[-2:] != b"\r\n":
            raise RequestError(400, "LF without CR")
        return line[:-2]

    def _recv(self, most: int) -> bytes:
        """Park until bytes come; STEP of them within the time, however slowly."""
        if self._step <= 0:
            self._patience, self._step = self._timeout, STEP
        try:
            if self._before_first is not None:
                ask, self._before_first = self._before_first, None
                ask()
            began = time.monotonic()
            if self._patience <= 0:
                raise TimeoutError
            data = self._reader.conn.recv(most, self._patience)
        except TimeoutError:
            raise RequestError(408, "body too slow") from None
        except OSError as error:
            raise RequestError(400, f"the connection broke: {error}") from None
        if not data:
            raise RequestError(400, "the client left in the middle of the body")
        self._patience -= time.monotonic() - began
        self._step -= len(data)
        return data
