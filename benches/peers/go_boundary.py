"""The served workloads of benches/workloads.toml on Go's net: `go_boundary.py PROGRAM NAME N`.

Those of group net, too. PROGRAM is benches/peers/go, compiled; measured as the others are.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import served

if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    if arguments == ["--list"]:
        print(" ".join(served.SERVED))
    else:
        name, count = arguments
        served.measure([program, "serve", name], name, int(count))
