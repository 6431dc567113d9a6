"""What a server may be told: limits, times, TLS, logs; and the errors that answer a request."""

from __future__ import annotations

import http
import logging
from dataclasses import dataclass

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import TypedDict

    from gort.wsgi._log import Access

    class Options(TypedDict, total=False):
        """The keyword arguments of `Server` and `serve`, as in `Settings`."""

        max_connections: int
        backlog: int
        reuse_port: bool
        ssl_context: ssl.SSLContext | None
        max_request_line: int
        max_header_bytes: int
        max_header_count: int
        max_body: int | None
        header_timeout: float
        body_timeout: float
        idle_timeout: float
        write_timeout: float
        drain_timeout: float
        access_log: bool | Callable[[Access], object]
        logger: logging.Logger
        server_name: str


LEAST = {"max_connections": 1, "backlog": 1, "max_request_line": 16, "max_header_bytes": 64}

MAY_BE_ZERO = ("idle_timeout", "drain_timeout")
LOGGER = logging.getLogger("gort.wsgi")


@dataclass(frozen=True, slots=True)
class Settings:
    """The limits and times of a server; sizes in bytes, times in seconds.

    Args:
        max_connections: how many are served at once; further ones wait in the kernel's queue.
        backlog: how long that queue may be.
        reuse_port: several processes may listen at the same port (SO_REUSEPORT).
        ssl_context: a server's ssl.SSLContext, for TLS; None: plain.
        max_request_line: longer ones are answered with 414.
        max_header_bytes: of request line and headers together; more is answered with 431.
        max_header_count: more headers are answered with 431.
        max_body: of a request; more is answered with 413. None: no limit.
        header_timeout: for request line and headers, from their first byte; then 408.
        body_timeout: for every 64 KiB of a body; then 408.
        idle_timeout: how long a connection may wait for its next request; then it is closed. 0:
            it ends with its first response.
        write_timeout: how long the client may take nothing of the response; then it is closed.
        drain_timeout: how long `serve` lets requests finish at its end.
        access_log: True: lines of level INFO to the logger "gort.wsgi.access"; or who is called
            with an `Access` after each response.
        logger: for errors.
        server_name: the Server header; "" for none.

    Raises:
        ValueError: a number is out of range, or server_name is no header's value.
    """

    max_connections: int = 10_000
    backlog: int = 4096
    reuse_port: bool = False
    ssl_context: ssl.SSLContext | None = None
    max_request_line: int = 8192
    max_header_bytes: int = 65536
    max_header_count: int = 100
    max_body: int | None = None
    header_timeout: float = 30.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    write_timeout: float = 60.0
    drain_timeout: float = 30.0
    access_log: bool | Callable[[Access], object] = False
    logger: logging.Logger = LOGGER
    server_name: str = "gort"

    def __post_init__(self) -> None:
        """Look at the numbers."""
        for name in self.__slots__:
            value = getattr(self, name)
            least = LEAST.get(name, 0)
            if name.startswith("max_") or name == "backlog":
                if value is None and name == "max_body":
                    continue
                if type(value) is not int or value < least:
                    raise ValueError(f"{name} must be an int, {least} or more: {value!r}")
            elif name.endswith("_timeout") and not (
                0 < value <= 1e6 or (value == 0 and name in MAY_BE_ZERO)
            ):
                raise ValueError(f"{name} must be positive seconds, 1e6 at most: {value!r}")
        name = self.server_name
        if name and not (name.isascii() and name.isprintable()):
            raise ValueError(f"server_name must be printable ASCII: {name!r}")


class RequestError(OSError):
    """A request that is not answered by the application; reading a body raises it there, too.

    An OSError, because that is what frameworks expect of a body that cannot be read. Left alone
    it becomes the response.

    Attributes:
        status: the code that answers it: 400, 408, 413, 414, 417, 431, 501 or 505.
        reason: what was wrong, for the log.

    Example:
        >>> from gort.wsgi import RequestError
        >>> str(RequestError(413, "body of 70000 bytes, 65536 allowed"))
        '413 Content Too Large: body of 70000 bytes, 65536 allowed'
    """

    def __init__(self, status: int, reason: str) -> None:
        """Take over status and reason."""
        super().__init__(reason)
        self.status = status
        self.reason = reason

    @property
    def line(self) -> str:
        """The status line's code and words."""
        return f"{self.status} {PHRASES[self.status]}"

    def __str__(self) -> str:
        """Give status, words and reason."""
        return f"{self.line}: {self.reason}"


#: Some of the words changed between Python versions.
PHRASES = {
    **{status.value: status.phrase for status in http.HTTPStatus},
    413: "Content Too Large",
    414: "URI Too Long",
}
