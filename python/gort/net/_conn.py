"""Conn: a stream, TCP or Unix. All of its hot methods are compiled (rust/py/src/entry/net)."""

from __future__ import annotations

import os
import stat

from gort import _core
from gort._closing import Closing
from gort._deadline import left, until
from gort._typing import TYPE_CHECKING
from gort.net._errors import address_text

if TYPE_CHECKING:
    from typing import Protocol

    from gort._core import Context

    class HasFileno(Protocol):
        """A file of the system."""

        def fileno(self) -> int:
            """Give its descriptor."""

else:
    HasFileno = object

#: Most bytes that sendfile() reads at once where the kernel does not send the file itself.
CHUNK = 1 << 18
#: The end of a file that has none, for the kernel.
WITHOUT_END = (1 << 63) - 1


class Conn(_core._Stream, Closing):
    """A connection, made by dial(), accept() or socket_conn(). Works in goroutines and threads.

    - `read(n)` gives 1 to n bytes, `b""` at the end; `read_exact(n)` n bytes or UnexpectedEOF;
      `readinto(buffer)` says how many bytes it put there. One call reads at a time.
    - `write(data)` and `writev(parts)` send all of it; one call writes at a time, so what each
      sends stays in one piece. Cut short, the exception says in `sent` how many bytes went out.
    - They park until it can go on, and take `timeout` (s) and `ctx`. A `read_exact` that does not
      end well has taken nothing: what came is read by the next call.
    - `set_deadline(when)`, `set_read_deadline`, `set_write_deadline`: when calls give up with
      TimeoutError, also those that wait already; in seconds since 1970, None for never.
    - `close_read()` and `close_write()` end one direction. `close()` ends all: whoever waits gets
      Closed.
    - `local_addr()`, `remote_addr()`: (host, port), or the path of a Unix socket.

    Errors are OSErrors that say what was done and between whom.

    Example:
        >>> import gort, gort.net
        >>> listener = gort.net.listen("tcp", "127.0.0.1:0")
        >>> def echo():
        ...     with listener.accept() as conn:
        ...         conn.write(conn.read(100))
        >>> g = gort.go(echo)
        >>> with gort.net.dial("tcp", listener.local_addr()) as conn:
        ...     conn.write(b"hello")
        ...     conn.read_exact(5)
        b'hello'
        >>> listener.close()
    """

    __slots__ = ()

    def sendfile(
        self,
        file: HasFileno,
        offset: int = 0,
        count: int | None = None,
        timeout: float | None = None,
        ctx: Context | None = None,
    ) -> int:
        """Send a part of a file, by the kernel where that can; parks while there is no room.

        Where the file stands is neither used nor changed.

        Args:
            file: a file that was opened for reading bytes.
            offset: where to begin, in bytes.
            count: how many bytes at most; None: to the end of the file.
            timeout: seconds at most; None for ever.
            ctx: a Context that ends the wait when it is done.

        Returns:
            How many bytes were sent.

        Raises:
            OSError: it cannot be read, or not be sent; its `sent` says how many bytes were.
            TimeoutError, ContextCanceled, DeadlineExceeded: it took too long; the same.
        """
        fd = file.fileno()
        most = WITHOUT_END - offset if count is None else count
        until_ns = until(timeout)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return self._send_file(fd, offset, most, left(until_ns), ctx)
        sent = 0
        try:
            while sent < most and (data := os.pread(fd, min(CHUNK, most - sent), offset + sent)):
                self.write(data, left(until_ns), ctx)
                sent += len(data)
        except BaseException as error:
            error.sent = sent + getattr(error, "sent", 0)  # type: ignore[attr-defined]
            raise
        return sent

    def __repr__(self) -> str:
        """Say which connection it is."""
        ends = f"{address_text(self.local_addr())}->{address_text(self.remote_addr())}"
        return f"<gort.net.Conn {self.network} {ends}{' closed' if self.closed else ''}>"


_core._net_own(Conn)
