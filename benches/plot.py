"""The picture of a bench run: medians on a logarithmic axis, PNG or SVG."""

from __future__ import annotations

from html import escape
from math import log10
from pathlib import Path
from typing import Any


def plot(path: Path, found: dict[str, Any], names: list[str], title: str) -> Path:
    """Draw medians on a logarithmic axis: PNG with matplotlib, an SVG of our own without."""
    works = [w for w, e in found.items() if any(e.get(n, {}).get("median") for n in names)]
    value = {(w, n): found[w].get(n, {}).get("median") for w in works for n in names}
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return _svg(path.with_name(path.name + ".svg"), works, names, value, title)
    figure, axes = pyplot.subplots(figsize=(14, 6))
    width = 0.85 / len(names)
    for i, name in enumerate(names):
        pairs = [(x + i * width, value[w, name]) for x, w in enumerate(works) if value[w, name]]
        if pairs:
            axes.bar([p[0] for p in pairs], [p[1] for p in pairs], width, label=name)
    axes.set_yscale("log")
    axes.set_xticks([x + 0.4 for x in range(len(works))], works)
    axes.set_ylabel("ns per operation, logarithmic (less is better)")
    axes.set_title(title)
    axes.legend(ncol=5)
    figure.tight_layout()
    picture = path.with_name(path.name + ".png")
    figure.savefig(picture, dpi=110)
    return picture


def _svg(
    path: Path, works: list[str], names: list[str], value: dict[Any, float | None], title: str
) -> Path:
    colours = (
        "#d62728", "#1f77b4", "#6baed6", "#9467bd", "#bcbd22",
        "#2ca02c", "#17becf", "#ff7f0e", "#8c564b", "#7f7f7f",
    )  # fmt: skip
    known = [v for v in value.values() if v]
    low, high = int(log10(min(known))), int(log10(max(known))) + 1
    left, top, tall, bar = 70, 60, 360, 9
    step = bar * len(names) + 18
    wide = left + step * len(works) + 10

    def y(v: float) -> float:
        return top + tall * (1 - (log10(v) - low) / (high - low))

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{top + tall + 40}"'
            ' font-family="sans-serif" font-size="11">'
            '<rect width="100%" height="100%" fill="#fff"/>'
        ),
        (
            f'<text x="{left}" y="18" font-size="14">{escape(title)}; '
            "ns per operation, logarithmic (less is better)</text>"
        ),
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(
            f'<path d="M{left} {at:.1f}H{wide}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>'
        )
    for i, name in enumerate(names):
        at = left + i * 85
        parts.append(
            f'<rect x="{at}" y="30" width="10" height="10" fill="{colours[i % len(colours)]}"/>'
            f'<text x="{at + 14}" y="39">{escape(name)}</text>'
        )
    for j, work in enumerate(works):
        for i, name in enumerate(names):
            v = value[work, name]
            if v:
                parts.append(
                    f'<rect x="{left + 9 + j * step + i * bar}" y="{y(v):.1f}" width="{bar - 1}"'
                    f' height="{top + tall - y(v):.1f}" fill="{colours[i % len(colours)]}">'
                    f"<title>{escape(work)} {escape(name)} {v:,.0f} ns</title></rect>"
                )
        middle = left + j * step + step / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{top + tall + 16}" text-anchor="middle">{work}</text>'
        )
    path.write_text("\n".join([*parts, "</svg>\n"]))
    return path
