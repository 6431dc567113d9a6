"""Crawls a local web server with urllib, many pages at once but so many requests a second."""

import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import gort
import gort.rate

PAGES = 30


class Site(BaseHTTPRequestHandler):
    """Page n links to 2n and 2n + 1."""

    def do_GET(self) -> None:
        n = int(self.path[1:])
        links = "".join(f'<a href="/{m}">' for m in (2 * n, 2 * n + 1) if m <= PAGES)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(links.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def crawl(base: str, limiter: gort.rate.Limiter) -> set[str]:
    seen: set[str] = set()

    def visit(scope: gort.Scope, path: str) -> None:
        limiter.wait()
        with urlopen(base + path) as page:
            found = re.findall(r'href="([^"]+)"', page.read().decode())
        for link in found:
            if link not in seen:
                seen.add(link)
                scope.go(visit, scope, link)

    with gort.scope() as scope:  # ends when all visits have ended
        seen.add("/1")
        scope.go(visit, scope, "/1")
    return seen


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    gort.go(server.serve_forever)
    begun = time.monotonic()
    seen = crawl(f"http://127.0.0.1:{server.server_port}", gort.rate.Limiter(200, burst=5))
    print(len(seen), "pages; held to the rate:", time.monotonic() - begun >= (PAGES - 5) / 200)
    server.shutdown()


if __name__ == "__main__":
    gort.run(main)
