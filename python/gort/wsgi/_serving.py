"""One connection: request after request, in the order they came, until it has to end.

A request that is refused is answered once and ends the connection, so that no byte behind it can
be taken for another request.
"""

from __future__ import annotations

import sys
import time

import gort
from gort import _core
from gort._typing import TYPE_CHECKING
from gort.wsgi._body import Body, Reader
from gort.wsgi._head import (
    EXPECTS,
    HAS_BODY,
    IS_ASTERISK,
    IS_HTTP11,
    KEEPS,
    SHIFT,
    fault_of_part,
    length_of,
    parse,
)
from gort.wsgi._log import Access, access_logger, log_error
from gort.wsgi._response import FileWrapper, Response, Shared
from gort.wsgi._settings import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

    from gort.wsgi._conn import Conn, TlsConn
    from gort.wsgi._settings import Settings

__all__ = ["GRACE", "Connection", "Service", "base_environ"]

#: Most heads are shorter; who waits for one keeps this much memory.
HEAD_BYTES = 4096
#: While the server drains, seconds in which a client that stays may still ask for something.
GRACE = 1.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Service(Shared):
    """What all connections of a server share.

    Args:
        app: the WSGI application.
        settings: of the server.
    """

    __slots__ = ("app", "keeps", "limits", "log_access", "max_body", "settings")

    def __init__(self, app: WSGIApplication, settings: Settings) -> None:
        """Begin to serve."""
        super().__init__(settings.server_name)
        self.app = app
        self.settings = settings
        self.log_access: Callable[[Access], object] | None = access_logger(settings)
        #: of heads, as `_core._http_request` takes them
        self.limits = (
            settings.max_request_line, settings.max_header_bytes, settings.max_header_count,
        )  # fmt: skip
        self.max_body = settings.max_body
        self.keeps = settings.idle_timeout > 0


class Connection:
    """A client's connection, served by one goroutine in `run`."""

    __slots__ = ("_base", "_conn", "_is_clean", "_nothing", "_reader", "_service", "is_idle")

    def __init__(self, service: Service, conn: Conn | TlsConn, base: dict[str, Any]) -> None:
        """Nothing is read yet.

        Args:
            service: whose connection it is.
            conn: the accepted connection.
            base: of the environ, what all requests of the connection share, and None for what
                each has of its own.
        """
        self._service = service
        self._conn = conn
        self._reader = Reader(conn)
        self._base = base
        # The body of all requests that have none: to read it changes nothing.
        self._nothing = Body(self._reader, 0, service.settings, None)
        #: whether nothing of a request has come
        self.is_idle = True
        # Whether the client has all it is to have, and nothing of its is left unread.
        self._is_clean = True

    def run(self) -> None:
        """Serve it to its end, and close it. Parks."""
        conn, settings = self._conn, self._service.settings
        try:
            conn.handshake(settings.header_timeout)
            timeout = settings.header_timeout
            while self._next(timeout):
                timeout = GRACE if self._service.is_draining else settings.idle_timeout
        except OSError:
            conn.close()  # the client is gone, or too slow to be told anything
        except BaseException:
            conn.reset()
            raise
        else:
            if self._is_clean and not self._reader.data:
                conn.close()
            else:
                conn.finish()

    def wake(self) -> None:
        """End the wait for a next request, if it waits for one."""
        if self.is_idle:
            self._conn.wake()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._conn.kill()

    def _next(self, timeout: float) -> bool:
        """Serve one request; whether another may follow."""
        self.is_idle = True
        data = self._reader.data
        if not data:
            try:
                data = self._conn.recv(HEAD_BYTES, timeout)
            except TimeoutError:
                return False
            if not data:
                return False
        self.is_idle = False
        environ = self._base.copy()
        found = _core._http_request(data, environ, *self._service.limits)
        if found is not None and not (found & HAS_BODY and self._is_too_long(environ)):
            self._reader.data = data[found >> SHIFT :]
            return self._serve(found, environ)
        environ = {key: value for key, value in self._base.items() if value is not None}
        try:
            found = self._head(environ, data)
        except RequestError as error:
            self._refuse(environ, error)
            return False
        return found is not None and self._serve(found, environ)

    def _is_too_long(self, environ: dict[str, Any]) -> bool:
        most = self._service.max_body
        return most is not None and length_of(environ) > most

    def _head(self, environ: dict[str, Any], data: bytes) -> int | None:
        """Park until a head that begins with `data` is there, and take it; None: it is none."""
        reader, settings = self._reader, self._service.settings
        until = 0.0
        known = 0
        skipped = False
        while True:
            if not skipped and data[:2] == b"\r\n":
                # One empty line before a request line is let pass: RFC 9112, 2.2.
                data, skipped, known = data[2:], True, 0
            reader.data = data
            if (end := data.find(b"\r\n\r\n", max(known - 3, 0))) >= 0:
                found = parse(data, end + 4, environ, settings)
                reader.data = data[end + 4 :]
                return found
            if (fault := fault_of_part(data, settings, known)) is not None:
                raise fault
            known = len(data)
            until = until or time.monotonic() + settings.header_timeout
            try:
                more = self._conn.recv(HEAD_BYTES, self._left(until))
            except TimeoutError:
                raise RequestError(408, "head too slow") from None
            if not more:
                if data.strip(b"\r\n"):
                    raise RequestError(400, "the client left in the middle of the head")
                return None
            data += more

    @staticmethod
    def _left(until: float) -> float:
        """Give the seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _refuse(self, environ: dict[str, Any], error: RequestError) -> None:
        """Answer what is no request, or cannot be served; the connection ends."""
        began = time.monotonic()
        method = environ.get("REQUEST_METHOD", "GET")
        response = Response(self._conn, self._service, method, True, False)
        self._service.settings.logger.info("%s %s", environ.get("REMOTE_ADDR"), error)
        self._is_clean = False
        try:
            response.say(error.line)
        finally:
            self._log(environ, response, began)

    def _log(self, environ: dict[str, Any], response: Response, began: float) -> None:
        if (log := self._service.log_access) is not None:
            seconds = time.monotonic() - began
            log(
                Access(
                    environ, response.status, response.headers, response.sent, seconds, time.time()
                )
            )

    def _serve(self, found: int, environ: dict[str, Any]) -> bool:
        """Call the application for a request and send its response; whether another may follow.

        Args:
            found: what `parse` gives.
            environ: with the head in it.
        """
        service = self._service
        log_access = service.log_access
        began = time.monotonic() if log_access is not None else 0.0
        response = Response(
            self._conn,
            service,
            environ["REQUEST_METHOD"],
            found & IS_HTTP11 != 0,
            found & KEEPS != 0 and service.keeps,
        )
        body = self._nothing
        if found & HAS_BODY:
            ask = self._asker(response) if found & EXPECTS else None
            body = Body(self._reader, length_of(environ), service.settings, ask)
            response.body = body
        environ["wsgi.input"] = body
        if found & IS_ASTERISK:
            response.start("200 OK", [])
            response.answer([])
        else:
            self._call(environ, response)
        if log_access is not None:
            self._log(environ, response, began)
        if (
            body is not self._nothing
            and not body.is_whole
            and not (response.keep_alive and body.discard())
        ):
            self._is_clean = response.keep_alive = False
        return response.keep_alive

    def _asker(self, response: Response) -> Callable[[], None]:
        """Give what asks the client for the body, unless it has its response already."""

        def ask() -> None:
            if not response.is_started:
                self._conn.send([CONTINUE])

        return ask

    def _call(self, environ: dict[str, Any], response: Response) -> None:
        """Run the application and send its response."""
        result = None
        try:
            try:
                result = self._service.app(environ, response.start)
                response.answer(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except gort.GoroutineExit:
            raise  # `run` resets the connection
        except BaseException as error:  # noqa: BLE001 - whatever an application raises is its own
            self._failed(environ, response, error)

    def _failed(self, environ: dict[str, Any], response: Response, error: BaseException) -> None:
        """Answer for an application that raised; the connection ends."""
        line = "500 Internal Server Error"
        if isinstance(error, RequestError):
            self._service.settings.logger.info("%s %s", environ.get("REMOTE_ADDR"), error)
            line = error.line
        elif not response.is_broken:  # that is the client's doing
            log_error(self._service.settings, "the application failed", environ, error)
        if not response.is_started:
            try:
                response.say(line)
            except OSError:
                pass  # it stays broken, and closed below
            self._is_clean = response.is_broken
        elif response.ends_with_connection:
            self._conn.reset()  # or the client would take it for the end of the body
        response.keep_alive = False


def base_environ(
    scheme: str, server: tuple[str, int], peer: Any, settings: Settings
) -> dict[str, Any]:
    """Give of the environ what all requests of a connection share, and None for what each has.

    A copy has room for a request: it need not grow.

    Args:
        scheme: http or https.
        server: host and port of the listener.
        peer: the client's address, as accept() has it.
        settings: of the server.
    """
    is_inet = isinstance(peer, tuple)
    base = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": settings.reuse_port,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "SERVER_SOFTWARE": settings.server_name or "gort",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SCRIPT_NAME": "",
        "REMOTE_ADDR": peer[0].partition("%")[0] if is_inet else "",
        "REMOTE_PORT": str(peer[1]) if is_inet else "",
        "REQUEST_METHOD": None,
        "SERVER_PROTOCOL": None,
        "PATH_INFO": None,
        "QUERY_STRING": None,
        "REQUEST_URI": None,
        "RAW_URI": None,
        "wsgi.input": None,
    }
    base["HTTP_HOST"] = None  # which makes room for twice as many; without it for these alone
    del base["HTTP_HOST"]
    return base
