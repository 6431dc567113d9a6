"""A worker for gunicorn whose requests are goroutines: `gunicorn -k gort.gunicorn.Worker app:app`.

gunicorn supervises the processes, reloads them and opens the sockets; each worker serves them as
`gort.wsgi` does. Its settings that mean something here are used: worker_connections, keepalive,
timeout, graceful_timeout, limit_request_line, limit_request_fields, max_requests, TLS, access log.
Needs gunicorn: `pip install "gort[gunicorn]"`.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from types import SimpleNamespace

from gort._typing import TYPE_CHECKING

try:
    from gunicorn.workers.base import Worker as _Base
except ImportError as error:
    raise ImportError(
        'gort.gunicorn needs gunicorn, which is not installed: pip install "gort[gunicorn]"'
    ) from error

import gort
from gort.wsgi._server import Server

if TYPE_CHECKING:
    import ssl
    from typing import Any

    from gort.wsgi import Access

__all__ = ["Worker"]

#: Seconds between two signs of life for the master, and looks at who the parent is.
TURN = 1.0
#: For its log: of a request that was refused before it was read.
NOT_READ = {"REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "-"}
#: gunicorn's limit_request_line and its fields at 0: as much as it likes.
MOST = 1 << 20


class Worker(_Base):  # type: ignore[misc]
    """Serves gunicorn's sockets with a goroutine for each connection."""

    def init_process(self) -> None:
        """Begin in the worker's process, and `run`."""
        self._ended: gort.Chan[None] = gort.Chan(1)
        self._is_cut = False
        self._is_one_of_many = self.cfg.workers > 1
        self._trusted = frozenset(map(str, self.cfg.forwarded_allow_ips))
        self._trusts_all = "*" in self._trusted
        self._secure = [
            ("HTTP_" + name.upper().replace("-", "_"), value)
            for name, value in self.cfg.secure_scheme_headers.items()
        ]
        super().init_process()

    def run(self) -> None:
        """Serve until the master says otherwise, or is gone. Parks."""
        server = Server(self._app, **self._options())
        for listener in self.sockets:
            sock = socket.socket(fileno=os.dup(listener.fileno()))
            server.listen_on(sock, is_shared=True)
        server.start()
        while self.alive:
            self.notify()
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                break
            if not server.addresses:
                break  # a listener failed, which is in the log
            try:
                self._ended.recv(timeout=TURN)
            except TimeoutError:
                pass
        self._end(server)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: end when what is under way is answered."""
        super().handle_exit(sig, frame)
        self._stop()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGQUIT and SIGINT: end at once."""
        self.cfg.worker_int(self)
        self.alive = False
        self._is_cut = True
        self._stop()

    def _stop(self) -> None:
        self._ended.try_send(None)

    def _end(self, server: Server) -> None:
        """Let what is under way finish, telling the master that we live meanwhile."""
        timeout = 0 if self._is_cut else self.cfg.graceful_timeout
        ending = gort.go(server.shutdown, timeout)
        while not ending.done:
            self.notify()
            if self._is_cut and timeout:  # a second signal, less patient than the first
                server.close()
                return
            try:
                ending.join(timeout=TURN)
            except TimeoutError:
                pass

    def _app(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Call the application, and count."""
        self.nr += 1
        if self.nr == self.max_requests:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self._stop()
        environ["wsgi.multiprocess"] = self._is_one_of_many
        if self._trusts_all or environ["REMOTE_ADDR"] in self._trusted:
            for key, value in self._secure:
                if environ.get(key) == value:
                    environ["wsgi.url_scheme"] = "https"
        return self.wsgi(environ, start_response)

    def _options(self) -> dict[str, Any]:
        cfg = self.cfg
        fields = cfg.limit_request_fields or MOST
        return {
            "max_connections": max(cfg.worker_connections, 1),
            "max_request_line": cfg.limit_request_line or MOST,
            "max_header_count": fields,
            "max_header_bytes": min(
                (cfg.limit_request_line or MOST) + fields * (cfg.limit_request_field_size or MOST),
                MOST,
            ),
            "idle_timeout": cfg.keepalive,
            "drain_timeout": cfg.graceful_timeout,
            "ssl_context": self._tls() if cfg.is_ssl else None,
            "access_log": self._log_access if self.log.access_log_enabled else False,
            "logger": self.log.error_log,
            "server_name": "gunicorn",
        }

    def _tls(self) -> ssl.SSLContext:
        from gunicorn.sock import ssl_context

        context: ssl.SSLContext = ssl_context(self.cfg)
        return context

    def _log_access(self, access: Access) -> None:
        """Write gunicorn's own access log."""
        environ = {**NOT_READ, **access.environ}
        headers = [
            (key[5:].replace("_", "-"), value)
            for key, value in access.environ.items()
            if key.startswith("HTTP_")
        ]
        self.log.access(
            SimpleNamespace(status=access.status, sent=access.sent, headers=access.headers),
            SimpleNamespace(headers=headers),
            environ,
            timedelta(seconds=access.seconds),
        )
