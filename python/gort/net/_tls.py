"""TLS over a Conn, by the standard library's ssl objects: SSLObject between two MemoryBIOs.

Not ssl.SSLSocket over the libc boundary: OpenSSL would read the socket inside of its own call, in
which a wait can neither be cancelled nor hear of a deadline that changes, and one goroutine could
not write while another waits to read. Between BIOs the object never waits; what it wants to send
and receive goes through the Conn, whose deadlines, contexts, cancellation and closing are those of
the TLS connection as well. The price is a copy of what goes through, and Python code for each
record.

The object is used by one goroutine at a time (`_state`): its calls let go of the GIL. One reads
from the Conn at a time (`_reading`), one writes to it (`_writing`), so that records stay in order.
"""

from __future__ import annotations

import ssl
import time

from gort._closing import Closing
from gort._core import Mutex
from gort._deadline import left, until
from gort._typing import TYPE_CHECKING
from gort.net._address import host_and_port
from gort.net._conn import Conn
from gort.net._dial import dial
from gort.net._errors import Closed, UnexpectedEOF, address_text, described
from gort.net._listen import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self, TypeVar

    from gort._core import Context
    from gort.net._address import AddressLike
    from gort.net._listen import Listener

    R = TypeVar("R")
    Data = bytes | bytearray | memoryview

#: Bytes that are read from the Conn at once: four records of the largest size.
READ = 1 << 16
#: Plain bytes that are encrypted at once: so much waits in memory while the Conn has no room.
WRITE = 1 << 16
#: Seconds that close() takes at most to say that it closes, as Go's (crypto/tls/conn.go).
CLOSE_NOTIFY = 5.0


class TLSConn(Closing):
    """A TLS connection, made by dial_tls(), TLSListener.accept() or from a Conn.

    Reads, writes, deadlines, addresses and closing are as for a Conn. The handshake is made by the
    first read or write, or by `handshake()`. After a write that was cut short no more can be
    written: half a record may be out.

    Args:
        conn: the connection below, which is this one's from here on.
        context: an ssl.SSLContext.
        server_side: whether this is the side that accepted.
        server_hostname: whom a client expects at the other end.

    Example:
        >>> import ssl, gort.net
        >>> a, b = (gort.net.from_socket(s) for s in __import__("socket").socketpair())
        >>> tls = gort.net.TLSConn(a, ssl.create_default_context(), server_hostname="localhost")
        >>> b.close()
        >>> try:
        ...     tls.handshake()
        ... except OSError:
        ...     print("no handshake")
        no handshake
        >>> tls.close()
    """

    __slots__ = (
        "__weakref__", "_broken", "_cipher", "_conn", "_in", "_is_ready", "_out", "_plain",
        "_reading", "_ssl", "_state", "_writing",
    )  # fmt: skip

    def __init__(
        self,
        conn: Conn,
        context: ssl.SSLContext,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        """Put TLS over `conn`; never parks."""
        self._conn = conn
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_side, server_hostname)
        self._state, self._reading, self._writing = Mutex(), Mutex(), Mutex()
        self._is_ready = False
        self._broken: str = ""
        self._cipher = b""  # read from the Conn, and not yet taken by the object
        self._plain = b""  # decrypted, and not yet given out

    @property
    def conn(self) -> Conn:
        """The connection below."""
        return self._conn

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """What knows certificate, cipher, version and ALPN of this connection."""
        return self._ssl

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._conn.closed

    @property
    def network(self) -> str:
        """That of the connection below."""
        return self._conn.network

    def _step(self, call: Callable[[], R]) -> tuple[R | None, bool]:
        """Call something of the object; its result, and whether it has one: else it wants more."""
        with self._state:
            try:
                return call(), True
            except ssl.SSLWantReadError:
                return None, False

    def _flush(self, until_ns: int | None, ctx: Context | None) -> None:
        """Send what the object wants sent."""
        if not self._out.pending:
            return
        self._writing.lock(left(until_ns), ctx)
        try:
            if self._broken:
                raise OSError(self._broken)
            with self._state:
                data = self._out.read()
            try:
                self._conn.write(data, left(until_ns), ctx)
            except BaseException:
                before = described("write", "tls", self.local_addr(), self.remote_addr())
                self._broken = f"{before}: an earlier write was cut short"
                raise
        finally:
            self._writing.unlock()

    def _fill(self, until_ns: int | None, ctx: Context | None) -> None:
        """Receive something for the object."""
        if not self._cipher:
            self._cipher = self._conn.read(READ, left(until_ns), ctx)
        with self._state:
            if self._cipher:
                self._in.write(self._cipher)
                self._cipher = b""
            else:
                self._in.write_eof()

    def _complete(self, call: Callable[[], R], until_ns: int | None, ctx: Context | None) -> R:
        """Call something of the object until it is through; the caller has the turn to read."""
        while True:
            try:
                result, is_done = self._step(call)
            finally:
                if not self._broken:
                    self._flush(until_ns, ctx)  # an alert that says why it failed, too
            if is_done:
                return result  # type: ignore[return-value]
            self._fill(until_ns, ctx)

    def handshake(self, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Make the handshake, unless it is made; parks.

        Args:
            timeout: seconds at most; None for ever.
            ctx: a Context that ends it when it is done.

        Raises:
            ssl.SSLError: the two do not get on; ssl.SSLCertVerificationError: it is not who it
                should be.
            OSError, TimeoutError, ContextCanceled, DeadlineExceeded: of the connection.
        """
        if self._is_ready:
            return
        until_ns = until(timeout)
        self._reading.lock(left(until_ns), ctx)
        try:
            if not self._is_ready:
                self._complete(self._ssl.do_handshake, until_ns, ctx)
                self._is_ready = True
        finally:
            self._reading.unlock()

    def read(self, n: int, timeout: float | None = None, ctx: Context | None = None) -> bytes:
        """Give what there is, 1 to n bytes; b"" at the end, of which the other end said so. Parks.

        Args:
            n: bytes at most.
            timeout: seconds at most; None for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            ssl.SSLEOFError: the connection ended without that: something may be missing.
            OSError, TimeoutError, ContextCanceled, DeadlineExceeded: as for a Conn.
        """
        if n < 0:
            raise ValueError(f"{n} bytes cannot be read")
        if n == 0:
            return b""
        until_ns = until(timeout)
        self.handshake(timeout, ctx)
        self._reading.lock(left(until_ns), ctx)
        try:
            if not self._plain:
                self._decrypt(n, until_ns, ctx)
            data = self._plain[:n]
            self._plain = self._plain[n:]
            return data
        finally:
            self._reading.unlock()

    def _decrypt(self, n: int, until_ns: int | None, ctx: Context | None) -> None:
        """Get up to n plain bytes; none at the end."""

        def step() -> None:
            self._plain = self._ssl.read(n)

        try:
            self._complete(step, until_ns, ctx)
        except ssl.SSLZeroReturnError:
            pass

    def read_exact(self, n: int, timeout: float | None = None, ctx: Context | None = None) -> bytes:
        """Give n bytes; parks until they are there. Fails without having taken any.

        Raises:
            UnexpectedEOF: the other end closed before; others as for read().
        """
        until_ns = until(timeout)
        parts: list[bytes] = []
        count = 0
        try:
            while count < n:
                part = self.read(n - count, left(until_ns), ctx)
                if not part:
                    before = described("read", "tls", self.local_addr(), self.remote_addr())
                    text = f"{before}: unexpected EOF, {count} of {n} bytes"
                    raise UnexpectedEOF(text, count, n)
                parts.append(part)
                count += len(part)
        except BaseException:
            self._plain = b"".join(parts) + self._plain
            raise
        return b"".join(parts)

    def readinto(
        self, buffer: Any, timeout: float | None = None, ctx: Context | None = None
    ) -> int:
        """Read into a buffer; how many bytes, 0 at the end. As read()."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view), timeout, ctx)
        view[: len(data)] = data
        return len(data)

    def write(self, data: Data, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Send all of it; parks while there is no room.

        Raises:
            OSError, TimeoutError, ContextCanceled, DeadlineExceeded: as for a Conn; no more can be
                written then.
        """
        until_ns = until(timeout)
        self.handshake(timeout, ctx)
        self._conn.write(b"")  # a closed one says so
        view = memoryview(data).cast("B")
        for start in range(0, len(view), WRITE):
            part = view[start : start + WRITE]
            while part:
                count, is_done = self._step(lambda part=part: self._ssl.write(part))  # type: ignore[misc]
                self._flush(until_ns, ctx)
                if is_done:
                    part = part[count:]
                else:
                    self._reading.lock(left(until_ns), ctx)  # a renegotiation
                    try:
                        self._fill(until_ns, ctx)
                    finally:
                        self._reading.unlock()

    def writev(
        self, parts: Iterable[Data], timeout: float | None = None, ctx: Context | None = None
    ) -> None:
        """Send all parts, one after another; as write()."""
        self.write(b"".join(parts), timeout, ctx)

    def set_deadline(self, when: float | None, /) -> None:
        """Set when reads and writes give up: seconds since 1970, None for never."""
        self._conn.set_deadline(when)

    def set_read_deadline(self, when: float | None, /) -> None:
        """Set when reads give up."""
        self._conn.set_read_deadline(when)

    def set_write_deadline(self, when: float | None, /) -> None:
        """Set when writes give up."""
        self._conn.set_write_deadline(when)

    def local_addr(self) -> Any:
        """Give its own address."""
        return self._conn.local_addr()

    def remote_addr(self) -> Any:
        """Give the other end's address."""
        return self._conn.remote_addr()

    def fileno(self) -> int:
        """Give the descriptor; -1 once closed."""
        return self._conn.fileno()

    def close_write(self) -> None:
        """Say that nothing more will be sent (close_notify); reading goes on. Parks."""
        try:
            self._step(self._ssl.unwrap)
        except ssl.SSLError:
            pass  # before the handshake there is nobody to tell
        self._flush(None, None)

    def close(self) -> None:
        """Say so to the other end, within 5 s, and close the connection below. May park."""
        if self._conn.closed:
            return
        try:
            if self._is_ready and not self._broken and self._writing.try_lock():
                self._writing.unlock()
                self._conn.set_write_deadline(time.time() + CLOSE_NOTIFY)
                self.close_write()
        except (OSError, Closed):
            pass  # it is closed all the same
        finally:
            self._conn.close()

    def __repr__(self) -> str:
        """Say which connection it is."""
        ends = f"{address_text(self.local_addr())}->{address_text(self.remote_addr())}"
        return f"<gort.net.TLSConn {self.network} {ends}{' closed' if self.closed else ''}>"


class TLSListener(Closing):
    """A listener whose connections speak TLS, made by listen_tls(); the reader makes the handshake.

    `accept()` never waits for a handshake: a client that makes none keeps nobody from connecting.

    Example:
        >>> import ssl, gort.net
        >>> context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        >>> with gort.net.listen_tls("127.0.0.1:0", context) as listener:
        ...     listener.local_addr()[0]
        '127.0.0.1'
    """

    __slots__ = ("_context", "_listener")

    def __init__(self, listener: Listener, context: ssl.SSLContext) -> None:
        """Take a listener over."""
        self._listener = listener
        self._context = context

    def accept(self, timeout: float | None = None, ctx: Context | None = None) -> TLSConn:
        """Give the next connection; parks until there is one. As Listener.accept()."""
        return TLSConn(self._listener.accept(timeout, ctx), self._context, server_side=True)

    def serve(
        self,
        handler: Callable[[TLSConn], object],
        limit: int | None = None,
        ctx: Context | None = None,
    ) -> None:
        """Call `handler(conn)` in a goroutine for each connection, as Listener.serve()."""

        def secured(conn: Conn) -> None:
            with TLSConn(conn, self._context, server_side=True) as tls:
                handler(tls)

        self._listener.serve(secured, limit, ctx)

    def local_addr(self) -> Any:
        """Give where it listens."""
        return self._listener.local_addr()

    def close(self) -> None:
        """Close it; whoever accepts gets Closed."""
        self._listener.close()

    def __iter__(self) -> Self:
        """Iterate over the connections until it is closed."""
        return self

    def __next__(self) -> TLSConn:
        """Accept the next connection; parks."""
        return TLSConn(next(self._listener), self._context, server_side=True)


def listen_tls(address: AddressLike, context: ssl.SSLContext, **options: Any) -> TLSListener:
    """Listen for TLS connections over TCP; `options` are those of listen().

    Example:
        >>> import ssl, gort.net
        >>> context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        >>> gort.net.listen_tls("127.0.0.1:0", context).close()
    """
    return TLSListener(listen("tcp", address, **options), context)


def dial_tls(
    address: AddressLike,
    context: ssl.SSLContext | None = None,
    timeout: float | None = None,
    ctx: Context | None = None,
    *,
    server_hostname: str | None = None,
) -> TLSConn:
    """Connect over TCP and make the handshake; parks.

    Args:
        address: "host:port" or (host, port).
        context: an ssl.SSLContext; None: ssl.create_default_context().
        timeout: seconds for all of it.
        ctx: a Context that ends it when it is done.
        server_hostname: whom to expect; None: the host of the address.

    Raises:
        ssl.SSLError: as TLSConn.handshake().
        OSError, TimeoutError, ContextCanceled, DeadlineExceeded: as dial().

    Example:
        >>> import gort.net
        >>> with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        ...     try:
        ...         gort.net.dial_tls(listener.local_addr(), timeout=0.01)
        ...     except TimeoutError:
        ...         print("nobody makes the handshake")
        nobody makes the handshake
    """
    until_ns = until(timeout)
    if context is None:
        context = ssl.create_default_context()
    conn = dial("tcp", address, left(until_ns), ctx)
    try:
        tls = TLSConn(conn, context, False, server_hostname or host_and_port(address)[0])
        tls.handshake(left(until_ns), ctx)
    except BaseException:
        conn.close()
        raise
    return tls
