"""The server: listeners, the connections it has, and how it comes to an end."""

from __future__ import annotations

import os
import socket

import gort
from gort import _deadline
from gort._typing import TYPE_CHECKING
from gort.wsgi._accept import Acceptor, listen
from gort.wsgi._conn import TlsConn
from gort.wsgi._serving import GRACE, Connection, Service, base_environ
from gort.wsgi._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self, Unpack

    from _typeshed.wsgi import WSGIApplication

    from gort.context import Context
    from gort.wsgi._conn import Conn
    from gort.wsgi._settings import Options

__all__ = ["Server", "serve"]


class Server:
    """Serves a WSGI application over HTTP/1.1: a goroutine for each connection.

    `listen`, then `start`; `shutdown` when it is to end. A context manager starts it and shuts it
    down. Everything works from goroutines and threads.

    Args:
        app: the application, as PEP 3333 has it.
        options: the fields of `Settings`.

    Raises:
        TypeError: there is no such option, or app cannot be called.
        ValueError: an option is out of range.

    Example:
        >>> import http.client
        >>> import gort.wsgi
        >>> def app(environ, start_response):
        ...     start_response("200 OK", [("Content-Type", "text/plain")])
        ...     return [b"hello"]
        >>> server = gort.wsgi.Server(app, max_connections=100)
        >>> host, port = server.listen("127.0.0.1", 0)
        >>> with server:
        ...     client = http.client.HTTPConnection(host, port)
        ...     client.request("GET", "/")
        ...     client.getresponse().read()
        b'hello'
        >>> client.close()
    """

    def __init__(self, app: WSGIApplication, **options: Unpack[Options]) -> None:
        """Listen to nothing yet."""
        if not callable(app):
            raise TypeError(f"app must be callable, not {type(app).__name__}")
        self.settings = Settings(**options)
        self._service = Service(app, self.settings)
        self._slots = gort.Semaphore(self.settings.max_connections)
        self._acceptors: list[Acceptor] = []
        self._connections: set[Connection] = set()
        self._under_way = gort.WaitGroup()
        self._over: gort.Chan[None] = gort.Chan()
        self._paths: list[str] = []
        self._error: OSError | None = None
        self._is_started = False

    @property
    def addresses(self) -> list[Any]:
        """Where it listens: (host, port) and further parts for IPv6, or a path."""
        return [a.sock.getsockname() for a in self._acceptors if a.sock.fileno() >= 0]

    @property
    def num_connections(self) -> int:
        """How many connections it has."""
        return len(self._connections)

    def listen(self, host: str = "127.0.0.1", port: int = 8000) -> Any:
        """Open a listening socket; connections wait in it until `start`.

        Args:
            host: name or address; "" for all addresses; "unix:PATH" for a Unix socket.
            port: 0 for any.

        Returns:
            The address it has: (host, port) for IPv4.

        Raises:
            OSError: the address is in use, unknown or not allowed.
            RuntimeError: the server was started.
        """
        sock = listen(host, port, self.settings)
        try:
            self.listen_on(sock)
        except BaseException:
            sock.close()
            raise
        address = sock.getsockname()
        if isinstance(address, str):
            self._paths.append(address)
        return address

    def listen_on(self, sock: socket.socket, *, is_shared: bool = False) -> None:
        """Take over a listening socket; the server closes it at its end.

        Args:
            sock: it is made non-blocking.
            is_shared: other processes accept from it, too: what waits in it at the end is theirs.

        Raises:
            RuntimeError: the server was started.
        """
        if self._is_started:
            raise RuntimeError("the server was started")
        take = self._take_from(sock)
        self._acceptors.append(Acceptor(sock, self.settings, self._slots, take, is_shared))

    def start(self) -> None:
        """Begin to accept. Does not park.

        Raises:
            RuntimeError: it was started before, or listens to nothing.
        """
        if self._is_started:
            raise RuntimeError("the server was started before")
        if not self._acceptors:
            raise RuntimeError("the server listens to nothing: call listen() first")
        self._is_started = True
        for acceptor in self._acceptors:
            self._under_way.add(1)
            gort.spawn(self._accept, (acceptor,), name="gort.wsgi accept")

    def wait(self, ctx: Context | None = None) -> None:
        """Park until a `shutdown` is through.

        Args:
            ctx: wait until it is done at most.

        Raises:
            ContextCanceled, DeadlineExceeded: ctx is done.
            OSError: a listener failed, which ended the server.
        """
        self._over.recv_ok(ctx=ctx)
        if self._error is not None:
            raise self._error

    def shutdown(self, timeout: float | None = None, *, is_last: bool = False) -> bool:
        """Stop accepting, and park until the requests under way are answered.

        Responses from now on say "Connection: close". Clients that are connected and ask nothing
        are let go after a second. After `timeout` the connections that are left are cut.

        Args:
            timeout: seconds; None for as long as it takes.
            is_last: what waits in shared listeners is served, too: no other process will.

        Returns:
            Whether all ended by themselves.

        Raises:
            ValueError: timeout is negative or nan.
        """
        until = _deadline.until(timeout)
        self._service.is_draining = True
        for acceptor in self._acceptors:
            acceptor.stop(is_last=is_last)
            if not self._is_started:
                acceptor.close()
        try:
            whole = self._drained(until)
        except BaseException:
            self._cut()
            raise
        if not whole:
            self._cut()
        for path in self._paths:
            if os.path.exists(path):
                os.unlink(path)
        try:
            self._over.close()
        except gort.ChanClosed:
            pass  # somebody else's shutdown was through first
        return whole

    def close(self) -> None:
        """Stop at once: requests under way are cut. Does not park for long."""
        self.shutdown(0)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None
    ) -> None:
        """Shut it down: at once where an exception is under way."""
        self.shutdown(0 if kind else self.settings.drain_timeout)

    def _accept(self, acceptor: Acceptor) -> None:
        """Be the goroutine of a listener."""
        try:
            acceptor.run()
        except OSError as error:
            self._error = error
            self.settings.logger.error("accept: %s; the server ends", error)
            gort.go(self.shutdown, self.settings.drain_timeout)
        finally:
            self._under_way.done()

    def _take_from(self, listener: socket.socket) -> Callable[[Conn], None]:
        """Give what takes over the connections of a listener."""
        is_unix = listener.family == socket.AF_UNIX
        server = ("localhost", 80) if is_unix else listener.getsockname()[:2]

        def take(conn: Conn) -> None:
            self._under_way.add(1)
            try:
                gort.go(self._serve, conn, server)
            except BaseException as error:
                self._under_way.done()
                self._slots.release()
                conn.close()
                if not isinstance(error, MemoryError):  # the next one may find some
                    raise

        return take

    def _serve(self, conn: Conn, server: tuple[str, int]) -> None:
        """Be the goroutine of a connection."""
        settings = self.settings
        connection = None
        try:
            peer = conn.remote_addr()
            if settings.ssl_context is None:
                environ = base_environ("http", server, peer, settings)
                connection = Connection(self._service, conn, environ)
            else:
                environ = base_environ("https", server, peer, settings)
                tls = TlsConn(conn, settings.ssl_context)
                connection = Connection(self._service, tls, environ)
            self._connections.add(connection)
            connection.run()
        except OSError:
            pass  # the client was gone before the first byte
        finally:
            conn.close()  # which it is already but for errors before it was served
            self._connections.discard(connection)
            self._slots.release()
            self._under_way.done()

    def _drained(self, until: int | None) -> bool:
        """Park until all connections have ended, or the time is over; whether they have."""
        left = _deadline.left(until)
        if self._ended(GRACE if left is None else min(GRACE, left)):
            return True
        for connection in list(self._connections):
            connection.wake()
        return self._ended(_deadline.left(until))

    def _ended(self, timeout: float | None) -> bool:
        try:
            self._under_way.wait(timeout)
        except TimeoutError:
            return False
        return True

    def _cut(self) -> None:
        """End the connections that are left."""
        for connection in list(self._connections):
            connection.kill()
        self._ended(GRACE)  # what does not notice is an application that computes or sleeps


def serve(
    app: WSGIApplication,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    ctx: Context | None = None,
    **options: Unpack[Options],
) -> None:
    """Serve a WSGI application until `ctx` is done, or KeyboardInterrupt comes. Parks.

    Requests under way then get `drain_timeout` seconds to finish.

    Args:
        app: the application, as PEP 3333 has it.
        host: name or address; "" for all addresses; "unix:PATH" for a Unix socket.
        port: 0 for any.
        ctx: ends the server; None: nothing but an exception does.
        options: the fields of `Settings`.

    Raises:
        OSError: the address is in use, unknown or not allowed.
        TypeError, ValueError: of an option; see `Server`.
        KeyboardInterrupt: Ctrl-C came.

    Example:
        >>> import gort.wsgi
        >>> def app(environ, start_response):
        ...     start_response("204 No Content", [])
        ...     return []
        >>> ctx, cancel = gort.context.with_cancel(gort.context.background())
        >>> g = gort.go(gort.wsgi.serve, app, "127.0.0.1", 0, ctx=ctx)
        >>> cancel()
        >>> g.join()
    """
    server = Server(app, **options)
    server.listen(host, port)
    server.start()
    try:
        server.wait(ctx)
    except (gort.ContextCanceled, gort.DeadlineExceeded):
        server.shutdown(server.settings.drain_timeout)
    except KeyboardInterrupt:
        server.shutdown(server.settings.drain_timeout)
        raise
    except BaseException:
        server.close()
        raise
