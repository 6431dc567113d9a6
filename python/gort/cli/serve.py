"""`gort serve MODULE:APP`: a WSGI application on worker processes that are watched and reloaded.

This module reads the options and opens the sockets. `gort.cli._supervisor` keeps the workers,
`gort.cli._serve_worker` is one. docs/serve.md is what a user reads.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from typing import Any

from gort.cli._output import complain

__all__ = ["add_arguments", "main", "problem"]

_APP = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?")
_MOST_WORKERS = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort serve`."""
    parser.add_argument("app", metavar="MODULE:APP", help="the application, or MODULE:FACTORY()")
    parser.add_argument(
        "--host", default="127.0.0.1", help='name or address; "" for all; unix:PATH (127.0.0.1)'
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any (8000)")
    parser.add_argument("--workers", type=int, default=1, help="how many processes (1)")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM: serve https")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, if it is in another file")
    parser.add_argument("--access-log", action="store_true", help="log a line for each response")
    parser.add_argument(
        "--drain-timeout", type=float, default=30.0, metavar="SECONDS",
        help="what requests get to finish at a reload and at the end (30)",
    )  # fmt: skip
    parser.add_argument(
        "--max-connections", type=int, default=10_000, help="of each worker (10000)"
    )
    parser.add_argument("--backlog", type=int, default=4096, help="the kernel's queue (4096)")
    parser.add_argument(
        "--threads", action="store_true", help="make the threads of the application goroutines"
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Give the options of gort.wsgi, which each worker uses."""
    return {
        "access_log": options.access_log,
        "backlog": options.backlog,
        "drain_timeout": options.drain_timeout,
        "max_connections": options.max_connections,
        "reuse_port": options.workers > 1,  # the environ says "multiprocess"; ours is open already
    }


def problem(options: argparse.Namespace) -> str:
    """Say what is wrong with the options; empty if nothing is.

    Example:
        >>> import argparse
        >>> from gort.cli.serve import add_arguments, problem
        >>> parser = argparse.ArgumentParser()
        >>> add_arguments(parser)
        >>> problem(parser.parse_args(["app:app", "--workers", "0"]))
        '--workers must be 1 to 512, not 0'
    """
    if not _APP.fullmatch(options.app):
        return f"not MODULE:APP: {options.app!r}"
    if not 1 <= options.workers <= _MOST_WORKERS:
        return f"--workers must be 1 to {_MOST_WORKERS}, not {options.workers}"
    if not 0 <= options.port <= 65535:
        return f"--port must be 0 to 65535, not {options.port}"
    if options.tls_key and not options.tls_cert:
        return "--tls-key needs --tls-cert"
    from gort.wsgi._settings import Settings

    try:
        Settings(**_settings(options))
    except ValueError as error:
        return str(error)
    return _tls_problem(options) if options.tls_cert else ""


def _tls_problem(options: argparse.Namespace) -> str:
    """Say why the certificate cannot be had; empty if it can."""
    import ssl

    for path in filter(None, (options.tls_cert, options.tls_key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            return f"{path}: {error.strerror}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        return f"{options.tls_cert} is no certificate with its key: {error}"
    return ""


def _address(sock: socket.socket, scheme: str) -> str:
    """Write where a socket listens."""
    address = sock.getsockname()
    if isinstance(address, str):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{host}:{address[1]}"


def _open(options: argparse.Namespace) -> socket.socket:
    """Open the listening socket.

    Raises:
        OSError: the address is in use, unknown or not allowed.
    """
    from gort.wsgi._accept import listen
    from gort.wsgi._settings import Settings

    path = options.host.removeprefix("unix:")
    if path != options.host and os.path.exists(path):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # left by one that was killed: nobody listens there
    return listen(options.host, options.port, Settings(backlog=options.backlog))


def main(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0: all requests were answered. 1: some were cut, or workers ended before they served. 2: an
        option, the address or the application is not good.
    """
    from gort.cli._supervisor import Supervisor

    if text := problem(options):
        complain(f"gort serve: {text}")
        return 2
    is_unix = options.host.startswith("unix:")
    try:
        sock = _open(options)
    except OSError as error:
        where = options.host if is_unix else f"{options.host or '*'}:{options.port}"
        complain(f"gort serve: cannot listen at {where}: {error.strerror or error}")
        return 2
    tls = [options.tls_cert, options.tls_key] if options.tls_cert else None
    config = {
        "app": options.app,
        "options": _settings(options),
        "path": [os.getcwd(), *sys.path],
        "threads": options.threads,
        "tls": tls,
    }
    try:
        where = _address(sock, "https" if tls else "http")
        return Supervisor(config, [sock], options.workers, where).run()
    finally:
        sock.close()
        if is_unix and os.path.exists(path := options.host.removeprefix("unix:")):
            os.unlink(path)
