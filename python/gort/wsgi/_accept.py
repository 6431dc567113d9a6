"""Listening and accepting: sockets, the loop that takes connections, and what it does in need."""

from __future__ import annotations

import errno
import os
import socket

import gort
from gort._typing import TYPE_CHECKING
from gort.net._listen import Listener
from gort.wsgi._conn import Conn

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gort.context import Context
    from gort.wsgi._settings import Settings

__all__ = ["Acceptor", "listen"]

#: There is no room for another descriptor or its memory: it gets better when others end.
SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
#: The connection is gone before it was taken; Linux reports its errors here: accept(2).
GONE = frozenset(
    (errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT,
     errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EOPNOTSUPP, errno.EPERM)
)  # fmt: skip
#: Seconds between tries in need: the first, and the longest.
PAUSE, PAUSE_MOST = 0.005, 1.0


def listen(host: str, port: int, settings: Settings) -> socket.socket:
    """Open a listening socket.

    Args:
        host: name or address; "" for all addresses; "unix:PATH" for a Unix socket.
        port: 0 for any.
        settings: of the server.

    Raises:
        OSError: the address is in use, unknown or not allowed.
    """
    if host.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address: Any = host.removeprefix("unix:")
    else:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if settings.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(settings.backlog)
    except BaseException:
        sock.close()
        raise
    return sock


class Acceptor:
    """Takes the connections of one listener, in the goroutine of `run`.

    Args:
        sock: a listening socket.
        settings: of the server.
        slots: one is taken before a connection is, so that others wait in the kernel's queue.
        take: called with a connection; the slot is its to give back.
        is_shared: whether other processes accept from the listener, too.
    """

    def __init__(
        self,
        sock: socket.socket,
        settings: Settings,
        slots: gort.Semaphore,
        take: Callable[[Conn], None],
        is_shared: bool = False,
    ) -> None:
        """Do not accept yet."""
        self.sock = sock
        is_unix = sock.family == socket.AF_UNIX
        if not is_unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        # With a descriptor of its own: whoever gave the socket may still ask it for its address.
        number = os.dup(sock.fileno())
        try:
            self._listener = Listener(number, "unix" if is_unix else "tcp", Conn)
        except BaseException:
            os.close(number)
            raise
        self._settings = settings
        self._slots = slots
        self._take = take
        self._is_shared = is_shared
        self._context, self._cancel = gort.context.with_cancel(gort.context.background())

    def stop(self, *, is_last: bool = False) -> None:
        """Let `run` end, once it has taken what is in the kernel's queue. Never parks.

        Args:
            is_last: nobody else accepts any more, so that the queue is ours if it was shared.
        """
        self._is_shared = self._is_shared and not is_last
        self._cancel()

    def close(self) -> None:
        """Close the listener, where `run` was not called."""
        self._listener.close()
        self.sock.close()

    def run(self) -> None:
        """Take connections until `stop`, and close the listener. Parks."""
        try:
            left = self._settings.backlog + 1
            while self._has_slot():
                if self._context.err() is not None:
                    # The queue is no longer than that: who comes later is refused.
                    left = -1 if self._is_shared else left - 1
                accepted = self._accept() if left >= 0 else None
                if accepted is None:
                    self._slots.release()
                    break
                self._take(accepted)
        finally:
            self._cancel()
            self.close()

    def _has_slot(self) -> bool:
        """Park until a connection may be taken; after `stop`: whether one may."""
        if self._slots.try_acquire():
            return True
        try:
            self._slots.acquire(ctx=self._context)
        except gort.ContextCanceled:
            return self._slots.try_acquire()
        return True

    def _accept(self) -> Conn | None:
        """Park until there is a connection; None: stopped, and none is left."""
        pause = 0.0
        while True:
            try:
                return self._next()
            except gort.ContextCanceled:
                continue
            except TimeoutError:
                return None
            except (OSError, MemoryError) as error:
                number = error.errno if isinstance(error, OSError) else errno.ENOMEM
                if number in GONE:
                    continue
                if number not in SCARCE:
                    raise
                if not pause:
                    self._settings.logger.error("accept: %s; trying again", error)
                pause = min(pause * 2, PAUSE_MOST) or PAUSE
                if not self._rest(pause, self._context):
                    return None

    def _next(self) -> Conn:
        """Park until there is a connection.

        Raises:
            ContextCanceled: the wait ended by `stop`.
            TimeoutError: it was stopped before, and none is there.
            OSError: of the system.
        """
        if self._context.err() is None:
            conn = self._listener.accept(None, self._context)
        else:
            conn = self._listener.accept(0)
        assert isinstance(conn, Conn)  # what the listener was told to make
        conn.write_timeout = self._settings.write_timeout
        return conn

    @staticmethod
    def _rest(seconds: float, ctx: Context) -> bool:
        """Park for so long; whether the server goes on."""
        try:
            gort.sleep(seconds, ctx=ctx)
        except gort.ContextCanceled:
            return False
        return True
