"""Transform a CSV stream in pieces, several at once, in order, with little of it in memory."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice

import gort

Rows = list[list[str]]


def pieces(rows: Iterator[list[str]], size: int) -> Iterator[Rows]:
    while piece := list(islice(rows, size)):
        yield piece


def transform(piece: Rows) -> Rows:
    """Give name and price with tax; what is no price is dropped."""
    return [[name, f"{float(price) * 1.2:.2f}"] for name, price in piece if price != "-"]


def in_order(rows: Iterator[list[str]], size: int, at_once: int) -> Iterator[list[str]]:
    """Transform `at_once` pieces at the same time; give rows in the order they came in."""
    begun: gort.Chan[gort.Goroutine[Rows]] = gort.Chan(at_once)  # full: no more is read

    def read() -> None:
        for piece in pieces(rows, size):
            begun.send(gort.go(transform, piece))
        begun.close()

    reader = gort.go(read)
    for g in begun:
        yield from g.join()
    reader.join()  # raises what went wrong with reading


def convert(source: Iterable[str], sink: io.TextIOBase, size: int = 100, at_once: int = 8) -> int:
    writer, count = csv.writer(sink, lineterminator="\n"), 0
    for row in in_order(csv.reader(source), size, at_once):
        writer.writerow(row)
        count += 1
    return count


def main() -> None:
    source = (f"item {n},{'-' if n % 10 == 9 else n}\n" for n in range(5_000))
    sink = io.StringIO()
    print(convert(source, sink), "rows")
    print(*sink.getvalue().splitlines()[:3], "...", sink.getvalue().splitlines()[-1], sep="\n")


if __name__ == "__main__":
    gort.run(main)
