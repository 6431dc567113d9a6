"""For a child: HTTP clients by name, with the same few functions each."""

from __future__ import annotations

import os
import tempfile

from certificates import PEM

TRUST = tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False)
TRUST.write(PEM)
TRUST.close()


class Urllib3:
    """urllib3: one pool for all, as boto and requests use it, with retries off."""

    modules = ("urllib3",)
    shared = True

    def __init__(self, size=500, block=False):
        import urllib3

        self.module = urllib3
        self.error = urllib3.exceptions.HTTPError
        self.late = urllib3.exceptions.TimeoutError
        self.manager = urllib3.PoolManager(
            maxsize=size, block=block, ca_certs=TRUST.name, retries=False
        )

    def get(self, url, timeout=60):
        return self.manager.request("GET", url, timeout=timeout).data

    def put(self, url, body):
        return self.manager.request("PUT", url, body=body).data

    def idle(self, url):
        """How many connections lie in the pool, and how many could."""
        pool = self.manager.connection_from_url(url)
        return pool.pool.qsize(), pool.pool.maxsize


class Requests:
    """requests: one session for all; each mounts a pool of urllib3."""

    modules = ("requests",)

    def __init__(self, size=500, block=False):
        import requests
        import requests.adapters

        self.error = requests.RequestException
        self.late = requests.Timeout
        self.session = requests.Session()
        self.session.trust_env = False  # a variable there would win over the next line
        self.session.verify = TRUST.name
        adapter = requests.adapters.HTTPAdapter(1, size, pool_block=block)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def get(self, url, timeout=60):
        return self.session.get(url, timeout=timeout).content

    def put(self, url, body):
        return self.session.put(url, data=body).content

    def idle(self, url):
        manager = self.session.get_adapter(url).poolmanager
        pool = manager.connection_from_url(url)
        return pool.pool.qsize(), pool.pool.maxsize


class Httpx:
    """httpx: a client for 50 connections each, because a request looks at all of its pool many times.

    Two races of httpcore 1.0, in threads as here, are kept out of the way. It closes a connection that
    looks expired, or closed by the server, under a request that it was given to meanwhile (its issue
    1110): none expires, and none is asked. And it sets ALPN for each connection, while ssl reads it for
    another without the GIL: that one greets with what was freed, and the server hangs up.
    """

    modules = ("httpx",)

    def __init__(self, size=500, block=False):
        import itertools
        import ssl

        import httpcore._backends.sync
        import httpx

        class Context(ssl.SSLContext):
            def set_alpn_protocols(self, protocols):
                pass

        httpcore._backends.sync.is_socket_readable = lambda sock: False
        self.error = httpx.HTTPError
        self.late = httpx.TimeoutException
        self.size = size
        each = min(size, 50)
        limits = httpx.Limits(
            max_connections=each, max_keepalive_connections=each, keepalive_expiry=None
        )
        context = Context(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(TRUST.name)
        self.clients = [
            httpx.Client(limits=limits, verify=context, trust_env=False)
            for _ in range(size // each)
        ]
        self.turns = itertools.cycle(self.clients)

    def get(self, url, timeout=60):
        return next(self.turns).get(url, timeout=timeout).content

    def put(self, url, body):
        return next(self.turns).put(url, content=body, timeout=60).content

    def idle(self, url):
        pools = [client._transport._pool for client in self.clients]
        busy = sum(not c.is_idle() for pool in pools for c in pool.connections)
        return self.size - busy, self.size


class Curl:
    """pycurl: libcurl waits with poll; a handle is for one transfer at a time, so they are pooled here."""

    modules = ("pycurl",)

    def __init__(self, size=500, block=False):
        import queue

        import pycurl

        self.module = pycurl
        self.error = pycurl.error
        self.late = pycurl.error
        self.handles = queue.LifoQueue(size)
        self.size = size
        for _ in range(size):
            handle = pycurl.Curl()
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.CAINFO, TRUST.name)
            self.handles.put(handle)

    def perform(self, url, timeout, body=None):
        handle = self.handles.get()
        try:
            handle.setopt(self.module.URL, url)
            handle.setopt(self.module.TIMEOUT_MS, int(timeout * 1000))
            if body is not None:
                handle.setopt(self.module.CUSTOMREQUEST, "PUT")
                handle.setopt(self.module.POSTFIELDS, body)
            return handle.perform_rb()
        finally:
            if body is not None:
                handle.unsetopt(self.module.CUSTOMREQUEST)
                handle.setopt(self.module.HTTPGET, 1)
            self.handles.put(handle)

    def get(self, url, timeout=60):
        return self.perform(url, timeout)

    def put(self, url, body):
        return self.perform(url, 60, body)

    def idle(self, url):
        return self.handles.qsize(), self.size


class HttpClient:
    """http.client: a connection for each request."""

    modules = ()

    def __init__(self, size=500, block=False):
        import http.client
        import ssl

        self.module = http.client
        self.error = (OSError, http.client.HTTPException)
        self.late = TimeoutError
        self.context = ssl.create_default_context(cafile=TRUST.name)

    def request(self, method, url, timeout=60, body=None):
        scheme, _, rest = url.partition("://")
        place, _, path = rest.partition("/")
        if scheme == "https":
            connection = self.module.HTTPSConnection(place, timeout=timeout, context=self.context)
        else:
            connection = self.module.HTTPConnection(place, timeout=timeout)
        try:
            connection.request(method, f"/{path}", body)
            return connection.getresponse().read()
        finally:
            connection.close()

    def get(self, url, timeout=60):
        return self.request("GET", url, timeout)

    def put(self, url, body):
        return self.request("PUT", url, body=body)

    def idle(self, url):
        return 0, 0


CLIENTS = {
    "urllib3": Urllib3,
    "requests": Requests,
    "httpx": Httpx,
    "pycurl": Curl,
    "http.client": HttpClient,
}


def clean() -> None:
    """Remove what this module wrote."""
    os.unlink(TRUST.name)
