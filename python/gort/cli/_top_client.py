"""Asking a program that runs `gort.pprof.serve`, or mounts `gort.pprof.app`, over HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from contextlib import closing
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from gort.cli._top_figures import clean

__all__ = ["Away", "Client", "Refused"]

#: Seconds for which an answer may take its time.
_PATIENCE = 10.0
#: Bytes of an answer; dumps of a million goroutines have some hundreds of millions.
_MOST_BYTES = 1 << 30


class Away(Exception):
    """Nobody answers now; it may come back."""


class Refused(Exception):
    """Somebody answers, but not with what was asked for."""


def _split(url: str) -> SplitResult:
    """Take an address apart.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"http:// or https://, not {parts.scheme}://")
    if not parts.hostname:
        raise ValueError("there is no host in it")
    parts.port  # noqa: B018 - raises ValueError where it is none
    return parts


class Client:
    """Asks one program.

    Attributes:
        base: where it is, without the token.

    Example:
        >>> from gort.cli._top_client import Client
        >>> Client("127.0.0.1:6060/debug/pprof/", None).base
        'http://127.0.0.1:6060/debug/'
    """

    def __init__(self, url: str, token: str | None) -> None:
        """Take an address: `host:port`, or a URL up to or into /debug/, perhaps with a token.

        Args:
            url: `http://any:TOKEN@host:port/` has a token, as for `go tool pprof`.
            token: goes before that one.

        Raises:
            ValueError: it is no address.
        """
        parts = _split(url)
        given = unquote(parts.password) if parts.password is not None else None
        self._token = given if token is None else token
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self._netloc = f"{host}:{parts.port}" if parts.port else str(host)
        self._secure = parts.scheme == "https"
        before = parts.path.partition("/debug/")[0].rstrip("/").removesuffix("/debug")
        self._path = f"{before}/debug/"
        self.base = f"{parts.scheme}://{self._netloc}{self._path}"

    def get(
        self, path: str, query: dict[str, int] | None = None, patience: float = _PATIENCE
    ) -> bytes:
        """Ask for what lies below /debug/; parks until it is there.

        Raises:
            Away: nobody answers, or the server is in trouble.
            Refused: there is another answer than that.
        """
        where = f"{self._path}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Connection": "close", "Accept": "*/*"}
        if self._token is not None:
            secret = base64.b64encode(f"any:{self._token}".encode()).decode()
            headers["Authorization"] = f"Basic {secret}"  # which has room for every character
        try:
            with closing(self._connection(patience)) as connection:
                connection.request("GET", where, headers=headers)
                answer = connection.getresponse()
                status, body = answer.status, answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Away(_words(error)) from error
        if status == 200:
            return body
        said = clean(body[:200].decode("utf-8", "replace").strip())
        if status >= 500:
            raise Away(f"status {status}: {said}")
        raise Refused(self._reason(status, said))

    def _connection(self, patience: float) -> http.client.HTTPConnection:
        """A connection of its own for each request, as the server wants it."""
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._netloc, timeout=patience, context=context)
        return http.client.HTTPConnection(self._netloc, timeout=patience)

    def _reason(self, status: int, said: str) -> str:
        """Say what to do about a refusal."""
        if status == 401:
            what = "another token" if self._token is not None else "a token"
            return f"{self.base} wants {what}: --token, or http://any:TOKEN@host:port/"
        if status == 404:
            return f"{self.base}gort/ is not there: is that gort.pprof.serve, of this version?"
        return f"{self.base} refuses, with status {status}: {said}"

    def _json(self, path: str, query: dict[str, int] | None = None) -> dict[str, Any]:
        """Ask for a JSON object."""
        try:
            found = json.loads(self.get(path, query))
        except (ValueError, RecursionError) as error:
            raise Refused(f"{self.base}{path} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refused(f"{self.base}{path} is no JSON object")
        return found

    def state(self) -> dict[str, Any]:
        """Ask for the figures; see `get`."""
        return self._json("gort/state.json")

    def goroutines(self, most: int | None = None) -> dict[str, Any]:
        """Ask for goroutines by what they do; see `get`.

        Args:
            most: they are not looked at if there are more; None leaves that to the server.
        """
        return self._json("gort/goroutines.json", None if most is None else {"most": most})

    def dump(self) -> bytes:
        """Ask for all goroutines with their frames, as text; see `get`."""
        return self.get("pprof/goroutine", {"debug": 2}, patience=60.0)

    def profile(self, seconds: int) -> bytes:
        """Ask for a CPU profile of so many seconds; see `get`."""
        return self.get("pprof/profile", {"seconds": seconds}, patience=seconds + _PATIENCE)


def _words(error: Exception) -> str:
    """Say what went wrong without numbers of errors."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return clean(text)
