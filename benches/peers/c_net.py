"""Echo by load/load.c's own loop of epoll, recv and send: the least that group net's work takes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import served

SERVERS = ("net_64", "net_16k")

if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(*SERVERS)
    else:
        name, count = sys.argv[1:]
        served.measure([served.load_program(), "serve"], name, int(count))
