"""A worker of `gort serve`: a fresh interpreter that serves the supervisor's sockets.

Run as `python -c ... CONFIG CONTROL LISTENERS`: see `gort.cli._supervisor`, which holds the other
end of CONTROL, a stream socket. The worker says READY there when it has its application, or NO_APP
and a line that says why not. It accepts nothing until it is told GO; later it is told to RETIRE
(others accept from the same sockets) or to END. It cannot outlive its supervisor: the kernel kills
it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import Any

import gort
import gort.wsgi

__all__ = ["CUT", "END", "FAILED", "GO", "NO_APP", "READY", "RETIRE", "find_app", "main"]

READY, NO_APP = b"+", b"-"  # what a worker says
GO, RETIRE, END = b"g", b"r", b"e"  # what it is told
CUT, FAILED = 4, 3  # statuses: requests were cut at the end; the application cannot be had
_PR_SET_PDEATHSIG = 1
_FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"


class NoAppError(Exception):
    """There is no such application; the text says why in one line."""


def find_app(name: str) -> Any:
    """Import the application that is called MODULE:APP, or MODULE:FACTORY().

    Raises:
        NoAppError: there is none; what the module raised, if anything, is the cause.

    Example:
        >>> from gort.cli._serve_worker import find_app
        >>> find_app("wsgiref.simple_server:demo_app")  # doctest: +ELLIPSIS
        <function demo_app at ...>
    """
    module_name, _, path = name.partition(":")
    try:
        app: Any = import_module(module_name)
    except BaseException as error:  # SystemExit, too: a script that is no module
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise NoAppError(f"no module named {missing!r}") from None
        if missing:
            raise NoAppError(f"{module_name} needs {missing!r}, which is not there") from error
        raise NoAppError(f"importing {module_name} raised {_words(error)}") from error
    is_factory = path.endswith("()")
    for part in path.removesuffix("()").split("."):
        try:
            app = getattr(app, part)
        except AttributeError:
            raise NoAppError(f"module {module_name!r} has no {path!r}") from None
    if is_factory and callable(app):
        try:
            app = app()
        except BaseException as error:
            raise NoAppError(f"{name} raised {_words(error)}") from error
    if not callable(app):
        raise NoAppError(f"{name} cannot be called: it is of type {type(app).__name__}")
    return app


def _words(error: BaseException) -> str:
    """Say an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)  # it ended before we asked


def _set_signals(commands: gort.Chan[bytes]) -> None:
    """SIGTERM ends in order; the terminal's signals are the supervisor's to act on."""
    signal.signal(signal.SIGTERM, lambda *_: commands.try_send(END))
    for number in (signal.SIGINT, signal.SIGHUP):
        # Not SIG_IGN, which the processes that the application starts would have as well.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP, signal.SIGTERM))


def _set_logging() -> None:
    """Write what the server logs to stderr, unless the application has said where it goes."""
    logger = logging.getLogger("gort.wsgi")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """Give the options of the server."""
    options = dict(config["options"])
    if config["tls"] is not None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*config["tls"])
        options["ssl_context"] = context
    return options


def _serve(
    config: dict[str, Any],
    control: socket.socket,
    listeners: list[socket.socket],
    commands: gort.Chan[bytes],
) -> int:
    """Be the main goroutine."""
    try:
        app = find_app(config["app"])
        server = gort.wsgi.Server(app, **_options(config))
    except (NoAppError, OSError) as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        control.sendall(NO_APP + str(error).encode())
        return FAILED
    _set_logging()
    for sock in listeners:
        server.listen_on(sock, is_shared=True)
    control.sendall(READY)
    gort.go(_listen_to, control, commands)
    command = commands.recv()
    if command == GO:
        server.start()
        gort.go(_watch, server, commands)
        command = commands.recv()
    whole = server.shutdown(server.settings.drain_timeout, is_last=command == END)
    return 0 if whole else CUT


def _listen_to(control: socket.socket, commands: gort.Chan[bytes]) -> None:
    """Pass on what the supervisor says."""
    while data := control.recv(1):
        commands.try_send(data)


def _watch(server: gort.wsgi.Server, commands: gort.Chan[bytes]) -> None:
    """End the worker when its server has failed, which is in the log."""
    try:
        server.wait()
    except OSError:
        pass
    commands.try_send(END)


def _socket(number: str) -> socket.socket:
    """Take over a descriptor, which the processes of the application are not to have."""
    os.set_inheritable(int(number), False)
    return socket.socket(fileno=int(number))


def main(argv: list[str]) -> int:
    """Serve until the supervisor says otherwise; the exit status."""
    words, *numbers = argv
    config = json.loads(words)
    _die_with(config["supervisor"])
    if config["threads"]:
        gort.threads.enable()
    sys.argv = ["gort serve", config["app"]]
    commands: gort.Chan[bytes] = gort.Chan(8)
    _set_signals(commands)
    control, *listeners = map(_socket, numbers)
    return gort.run(_serve, config, control, listeners, commands)
