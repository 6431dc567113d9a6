"""A WSGI server: HTTP/1.1 with a goroutine for each connection (docs/wsgi.md).

    gort.wsgi.serve(app, "127.0.0.1", 8000)

`Server` is the same in steps. What a client may take of the server is in `Settings`. Requests are
read as RFC 9112 has them; what is malformed is answered and ends its connection.
"""

from __future__ import annotations

from gort.wsgi._log import Access
from gort.wsgi._server import Server, serve
from gort.wsgi._settings import RequestError, Settings

__all__ = ["Access", "RequestError", "Server", "Settings", "serve"]
