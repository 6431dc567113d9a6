"""Count the words of many files: a mapper for each file, reducers that each own some words."""

import tempfile
from collections import Counter
from pathlib import Path

import gort

REDUCERS = 4


def count_words(file: Path, parts: list[gort.Chan[Counter[str]]]) -> None:
    """Map: read one file with an ordinary read, and send each reducer its words."""
    split: list[Counter[str]] = [Counter() for _ in parts]
    for word in file.read_text().split():
        split[sum(word.encode()) % len(parts)][word] += 1
    for part, words in zip(parts, split, strict=True):
        part.send(words)


def merge(part: gort.Chan[Counter[str]]) -> Counter[str]:
    """Reduce: add up what comes until the channel is closed."""
    total: Counter[str] = Counter()
    for words in part:
        total.update(words)
    return total


def word_counts(files: list[Path]) -> Counter[str]:
    parts = [gort.Chan[Counter[str]](16) for _ in range(REDUCERS)]
    reducers = [gort.go(merge, part) for part in parts]
    mappers = gort.WaitGroup()
    for file in files:
        mappers.go(count_words, file, parts)
    mappers.wait()
    for part in parts:
        part.close()
    return sum((g.join() for g in reducers), Counter())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{n}.txt") for n in range(200)]
        for n, file in enumerate(files):
            file.write_text("go " * n + "chan " * (n % 3) + "select")
        counts = word_counts(files)
    print(*(f"{word}: {count}" for word, count in counts.most_common()), sep="\n")


if __name__ == "__main__":
    gort.run(main)
