"""A connection as the server needs one: bytes in, bytes out, each with a time limit.

Plain ones are gort.net's, whose reads and writes are compiled and keep the GIL. TLS stands on
SSLSocket, whose calls park at the libc boundary: OpenSSL takes less time for a record than the
Python code of gort.net.TLSConn does. What the rest of the package uses is here and nowhere else.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from gort._typing import TYPE_CHECKING
from gort.net._conn import Conn as NetConn

if TYPE_CHECKING:
    import ssl

#: What is read and thrown away of a connection that is being closed, in bytes and seconds.
LINGER_BYTES = 1 << 20
LINGER = 2.0
NO_LINGER = struct.pack("ii", 1, 0)


class Conn(NetConn):
    """A plain TCP or Unix connection. One goroutine uses it; `wake` and `kill` are for others.

    `write_timeout` is to be set by who accepts it: seconds without progress after which sending
    gives up.
    """

    __slots__ = ("write_timeout",)

    write_timeout: float

    #: whether files can be sent by the kernel
    has_sendfile = True

    #: Parks until there are bytes, and gives up to `size` of them; b"" at the end. TimeoutError:
    #: none came within `timeout` seconds; OSError: the connection is broken.
    recv = NetConn.read

    def handshake(self, timeout: float) -> None:
        """Do what comes before the first byte: nothing."""

    def send(self, parts: list[bytes]) -> None:
        """Park until all bytes are with the kernel.

        Raises:
            TimeoutError: the client took nothing for as long as it may.
            OSError: the connection is broken.
        """
        while True:
            try:
                if len(parts) == 1:
                    self.write(parts[0], self.write_timeout)
                else:
                    self.writev(parts, self.write_timeout)
            except TimeoutError as error:
                parts = _rest(parts, _sent(error))
            else:
                return

    def send_last(self, data: bytes) -> None:
        """As `send`; `close` or `finish` follows at once, whose end goes along in the last packet.

        The client is woken once instead of twice.
        """
        while True:
            try:
                self._write_last(data, self.write_timeout)
            except TimeoutError as error:
                data = data[_sent(error) :]
            else:
                return

    def send_file(self, file: int, start: int, count: int) -> int:
        """Send bytes of a regular file without reading them; how many there were.

        Args:
            file: its descriptor.
            start: the first byte.
            count: how many, 0 or more.

        Raises:
            TimeoutError, OSError: as `send`.
        """
        sent = 0
        while True:
            try:
                left = count - sent
                return sent + self._send_file(file, start + sent, left, self.write_timeout)
            except TimeoutError as error:
                sent += _sent(error)

    def finish(self) -> None:
        """Say that nothing more will be sent, read on for a moment, and close.

        A socket that is closed with unread bytes is reset, which takes the last response away from
        a client that has not read it yet (RFC 9112, 9.6).
        """
        try:
            self.close_write()
            _drain(self)
        except OSError:
            pass  # the client is gone
        self.close()

    def reset(self) -> None:
        """Close so that the client sees an error and no end."""
        try:
            sock = socket.socket(fileno=self.fileno())
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            finally:
                sock.detach()
        except (OSError, ValueError):
            pass  # it is closed
        self.close()

    def wake(self) -> None:
        """End the wait for bytes of whoever reads; what is there already is still read."""
        try:
            self.close_read()
        except OSError:
            pass  # the client is gone

    def kill(self) -> None:
        """End whatever is under way."""
        for end in (self.close_read, self.close_write):
            try:
                end()
            except OSError:
                pass  # the client is gone


class TlsConn:
    """The same over TLS."""

    __slots__ = ("_sock", "_tls", "_write_timeout")

    has_sendfile = False

    def __init__(self, conn: Conn, context: ssl.SSLContext) -> None:
        """Take over an accepted connection; `context` is a server's.

        Raises:
            OSError: the client is gone, or there are no descriptors left.
        """
        self._write_timeout = conn.write_timeout
        try:
            sock = socket.socket(fileno=os.dup(conn.fileno()))
        finally:
            conn.close()
        with sock:  # it is detached where this succeeds
            self._tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._sock: socket.socket = self._tls

    def handshake(self, timeout: float) -> None:
        """Do TLS's handshake, within so many seconds.

        Raises:
            TimeoutError, OSError: it failed.
        """
        self._tls.settimeout(timeout)
        self._tls.do_handshake()

    def recv(self, size: int, timeout: float) -> bytes:
        """As of Conn."""
        self._sock.settimeout(max(timeout, 0.001))
        return self._sock.recv(size)

    def send(self, parts: list[bytes]) -> None:
        """As of Conn; the time is for all of it."""
        self._sock.settimeout(self._write_timeout)
        self._sock.sendall(parts[0] if len(parts) == 1 else b"".join(parts))

    def send_last(self, data: bytes) -> None:
        """As `send`."""
        self.send([data])

    def close(self) -> None:
        """Send what ends TLS, if that goes at once, and close."""
        try:
            self._tls.settimeout(0)
            self._tls.unwrap()
        except (OSError, ValueError):
            pass
        self._close()

    def finish(self) -> None:
        """As of Conn, with what ends TLS: a client takes it for the proof that nothing was cut."""
        try:
            self._tls.settimeout(LINGER)
            self._sock = self._tls.unwrap()
            self._sock.shutdown(socket.SHUT_WR)
            _drain(self)
        except (OSError, ValueError):
            pass  # the client is gone, or its TLS is over
        self.close()

    def reset(self) -> None:
        """As of Conn."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        except OSError:
            pass
        self._close()

    def wake(self) -> None:
        """As of Conn."""
        self._shutdown(socket.SHUT_RD)

    def kill(self) -> None:
        """As of Conn."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            socket.socket.shutdown(self._sock, how)  # not SSLSocket's, which forgets its session
        except OSError:
            pass

    def _close(self) -> None:
        try:
            self._sock.close()
        except OSError:
            pass


def _drain(conn: Conn | TlsConn) -> None:
    """Read what still comes of a connection that has ended here, for a moment.

    Raises:
        TimeoutError, OSError: it comes too slowly, or the connection is broken.
    """
    until = time.monotonic() + LINGER
    left = LINGER_BYTES
    while left > 0 and (remaining := until - time.monotonic()) > 0:
        got = len(conn.recv(65536, remaining))
        if not got:
            break
        left -= got


def _sent(error: TimeoutError) -> int:
    """Give how many bytes the client took before the time was over, and raise where it took none.

    Raises:
        TimeoutError: none.
    """
    sent: int = getattr(error, "sent", 0)
    if not sent:
        raise error
    return sent


def _rest(parts: list[bytes], sent: int) -> list[bytes]:
    """Give the parts without their first `sent` bytes."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[index + 1 :]]
        sent -= len(part)
    return []
