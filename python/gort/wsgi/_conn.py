"""A connection as the server needs one: bytes in, bytes out, each with a time limit.

It stands on plain socket objects, whose calls park the goroutine. What the rest of the package
uses is here and nowhere else, so that another kind of connection can take its place.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

#: Buffers that the kernel takes in one call (IOV_MAX).
VECTORS = 1024
#: What is read and thrown away of a connection that is being closed, in bytes and seconds.
LINGER_BYTES = 1 << 20
LINGER = 2.0


class Conn:
    """A plain TCP or Unix connection. One goroutine uses it; `wake` and `kill` are for others."""

    __slots__ = ("_recv", "_recv_timeout", "_write_timeout", "sock")

    #: whether files can be sent by the kernel
    has_sendfile = True

    def __init__(self, sock: socket.socket, write_timeout: float) -> None:
        """Take over an accepted socket.

        Args:
            sock: it is closed by `close`.
            write_timeout: seconds without progress after which sending gives up.
        """
        self.sock = sock
        self._write_timeout = write_timeout
        self._recv_timeout = 0.0
        # A blocking socket with SO_RCVTIMEO: a wait costs no call of poll, as settimeout's does.
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(write_timeout))
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._recv = sock.recv

    def handshake(self, timeout: float) -> None:
        """Do what comes before the first byte: nothing."""

    def recv(self, size: int, timeout: float) -> bytes:
        """Park until there are bytes, and give up to `size` of them; b"" at the end.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            OSError: the connection is broken.
        """
        if timeout != self._recv_timeout:
            value = _timeval(max(timeout, 0.001))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self._recv_timeout = timeout
        try:
            return self._recv(size)
        except BlockingIOError:
            raise TimeoutError from None

    def send(self, parts: list[bytes]) -> None:
        """Park until all bytes are with the kernel.

        Raises:
            TimeoutError: the client took nothing for as long as it may.
            OSError: the connection is broken.
        """
        try:
            sent = self.sock.sendmsg(parts[:VECTORS])
            wanted = sum(map(len, parts))
            while sent < wanted:
                parts = _rest(parts, sent)
                wanted -= sent
                sent = self.sock.sendmsg(parts[:VECTORS])
        except BlockingIOError:
            raise TimeoutError from None

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
        try:
            while sent < count:
                step = os.sendfile(self.sock.fileno(), file, start + sent, count - sent)
                if not step:
                    break
                sent += step
        except BlockingIOError:
            raise TimeoutError from None
        return sent

    def finish(self) -> None:
        """Say that nothing more will be sent, read on for a moment, and close.

        A socket that is closed with unread bytes is reset, which takes the last response away from
        a client that has not read it yet (RFC 9112, 9.6).
        """
        until = time.monotonic() + LINGER
        left = LINGER_BYTES
        try:
            self._end_of_data()
            while left > 0 and (remaining := until - time.monotonic()) > 0:
                got = len(self.recv(65536, remaining))
                if not got:
                    break
                left -= got
        except (OSError, ValueError):
            pass  # the client is gone, or its TLS is over
        self.close()

    def _end_of_data(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close so that the client sees an error and no end."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self._close()

    def close(self) -> None:
        """Close it; once more does nothing."""
        self._close()

    def _close(self) -> None:
        try:
            self.sock.close()
        except OSError:
            pass

    def wake(self) -> None:
        """End the wait for bytes of whoever reads; what is there already is still read."""
        _shutdown(self.sock, socket.SHUT_RD)

    def kill(self) -> None:
        """End whatever is under way."""
        _shutdown(self.sock, socket.SHUT_RDWR)


class TlsConn(Conn):
    """The same over TLS."""

    __slots__ = ("_tls",)

    has_sendfile = False

    def __init__(self, sock: socket.socket, write_timeout: float, context: ssl.SSLContext) -> None:
        """Take over an accepted socket, see Conn; `context` is a server's."""
        super().__init__(sock, write_timeout)
        self._tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.sock = self._tls
        self._recv = self._tls.recv

    def handshake(self, timeout: float) -> None:
        """Do TLS's handshake, within so many seconds.

        Raises:
            TimeoutError, OSError: it failed.
        """
        self._tls.settimeout(timeout)
        self._tls.do_handshake()

    def recv(self, size: int, timeout: float) -> bytes:
        """As of Conn."""
        self._tls.settimeout(max(timeout, 0.001))
        return self._recv(size)

    def send(self, parts: list[bytes]) -> None:
        """As of Conn; the time is for all of it."""
        self._tls.settimeout(self._write_timeout)
        self._tls.sendall(b"".join(parts))

    def close(self) -> None:
        """Send what ends TLS, if that goes at once, and close."""
        try:
            self._tls.settimeout(0)
            self._tls.unwrap()
        except (OSError, ValueError):
            pass
        self._close()

    def _end_of_data(self) -> None:
        """Send what ends TLS, which a client takes for the proof that nothing was cut off."""
        self._tls.settimeout(LINGER)
        self.sock = self._tls.unwrap()
        self._recv = self.sock.recv
        self.sock.shutdown(socket.SHUT_WR)


def make_conn(sock: socket.socket, write_timeout: float, context: ssl.SSLContext | None) -> Conn:
    """Give the connection over an accepted socket; see Conn."""
    if context is None:
        return Conn(sock, write_timeout)
    return TlsConn(sock, write_timeout, context)


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1e6))


def _rest(parts: list[bytes], sent: int) -> list[bytes]:
    """Give the parts without their first `sent` bytes."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[index + 1 :]]
        sent -= len(part)
    return []


def _shutdown(sock: socket.socket, how: int) -> None:
    try:
        socket.socket.shutdown(sock, how)  # not SSLSocket's, which forgets its session first
    except OSError:
        pass
