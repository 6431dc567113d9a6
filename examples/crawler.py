"""Follows links between files with ordinary blocking reads, each page once, 100 readers at most."""

import re
import sys
import tempfile
from pathlib import Path

import gort


def read_links(page: Path) -> list[Path]:
    """Read a page and give the pages it links to: plain open() and read()."""
    return [page.parent / name for name in re.findall(r'href="([^"]+)"', page.read_text())]


def crawl(start: Path) -> dict[str, int]:
    found: gort.Chan[tuple[Path, list[Path]]] = gort.Chan()
    readers = gort.Semaphore(100)

    def visit(page: Path) -> None:
        with readers:
            links = read_links(page) if page.exists() else []
        found.send((page, links))

    seen, count = {start}, {}
    gort.go(visit, start)
    pending = 1
    while pending:
        page, links = found.recv()
        pending -= 1
        count[page.name] = len(links)
        for link in links:
            if link not in seen:
                seen.add(link)
                gort.go(visit, link)
                pending += 1
    return count


def make_site(folder: Path, pages: int) -> Path:
    """Write pages of which number n links to 2n and 2n + 1, and to the first."""
    for n in range(1, pages + 1):
        links = [m for m in (2 * n, 2 * n + 1, 1) if m <= pages]
        text = "".join(f'<a href="{m}.html">{m}</a>' for m in links)
        (folder / f"{n}.html").write_text(text)
    return folder / "1.html"


if __name__ == "__main__":
    pages = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        count = gort.run(crawl, make_site(Path(folder), pages))
    print(len(count), "pages,", sum(count.values()), "links")
