"""Charts as SVG text, to stand inside a page of HTML: no script, no fonts, nothing to fetch.

Sizes are in pixels of the drawing, which scales with the page. Colours are "#rrggbb".
"""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

WIDTH, HEIGHT = 540, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 136, 26, 40
_INK, _GRID = "#333a45", "#dde1e8"


def line_chart(
    title: str,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    colors: Mapping[str, str],
    labels: tuple[str, str],
    limits: tuple[float, float] = (1.0, 1.0),
) -> str:
    """Lines (x, y) by name over [0, limits[0]] x [0, limits[1]], with a legend; at most 300 points each."""
    parts = [*_frame(title, labels, limits)]
    for name, (x, y) in lines.items():
        rows = np.unique(np.linspace(0, max(len(x) - 1, 0), 300).astype(int)) if len(x) else np.zeros(0, int)
        shares = zip(x[rows] / limits[0], y[rows] / limits[1], strict=True)
        places = " ".join(f"{_x(a):.1f},{_y(b):.1f}" for a, b in shares)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colors[name]}" stroke-width="1.8"/>')
    return _svg([*parts, *_legend(lines, colors)])


def bar_chart(
    title: str,
    groups: Sequence[str],
    bars: Mapping[str, Sequence[float]],
    colors: Mapping[str, str],
    labels: tuple[str, str],
    limit: float = 1.0,
) -> str:
    """Bars of each name side by side in each group, in [0, limit]; NaN leaves a place empty."""
    parts = [*_frame(title, labels, (0.0, limit))]
    slot = (WIDTH - _LEFT - _RIGHT) / max(len(groups), 1)
    width = 0.8 * slot / max(len(bars), 1)
    for k, group in enumerate(groups):
        middle = _LEFT + (k + 0.5) * slot
        parts.append(_text(middle, HEIGHT - _BOTTOM + 14, group, "middle"))
    for i, (name, values) in enumerate(bars.items()):
        for k, value in enumerate(values):
            if not np.isnan(value):
                left = _LEFT + (k + 0.1) * slot + i * width
                top = _y(min(value / limit, 1.0))
                size = f'width="{0.92 * width:.1f}" height="{HEIGHT - _BOTTOM - top:.1f}"'
                parts.append(
                    f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{colors[name]}">'
                    f"<title>{html.escape(f'{name}, {groups[k]}: {value:.3g}')}</title></rect>"
                )
    return _svg([*parts, *_legend(bars, colors)])


def histogram(
    title: str,
    values: Mapping[str, np.ndarray],
    colors: Mapping[str, str],
    label: str,
    limit: float,
    bins: int = 30,
) -> str:
    """Share of the values in each of `bins` parts of [0, limit]; what is beyond counts in the last one."""
    edges = np.linspace(0, limit, bins + 1)
    lines = {}
    highest = 0.01
    for name, numbers in values.items():
        counts, _ = np.histogram(np.clip(numbers, 0, limit), edges)
        share = counts / max(len(numbers), 1)
        highest = max(highest, float(share.max(initial=0)))
        lines[name] = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)
    return line_chart(title, lines, colors, (label, "share"), (limit, round_up(highest)))


def round_up(value: float) -> float:
    """The end of an axis with five even ticks that holds a positive value: 1, 2, 2.5 or 5 times a power of
    ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9)))


def heat_table(rows: Sequence[str], columns: Sequence[str], counts: np.ndarray, corner: str) -> str:
    """Counts as an HTML table; each row is shaded by the share of its sum."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = [f"<table><tr><th>{html.escape(corner)}</th>{head}</tr>"]
    for name, row in zip(rows, counts, strict=True):
        total = max(int(row.sum()), 1)
        cells = "".join(
            f'<td style="background:rgba(52,110,190,{value / total:.3f})">{value}</td>'
            for value in row.tolist()
        )
        lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return "".join([*lines, "</table>"])


def _svg(parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img">'
    return head + "".join(parts) + "</svg>"


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP)


def _frame(title: str, labels: tuple[str, str], limits: tuple[float, float]) -> list[str]:
    """Title, grid, ticks and names of the axes; no ticks along x for a limit of 0."""
    centre = (_LEFT + WIDTH - _RIGHT) / 2
    parts = [_text(centre, 15, title, "middle", "bold")]
    for k in range(6):
        y, x = _y(k / 5), _x(k / 5)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 5, y + 4, f"{limits[1] * k / 5:.3g}", "end"))
        if limits[0]:
            parts.append(_text(x, HEIGHT - _BOTTOM + 14, f"{limits[0] * k / 5:.3g}", "middle"))
    parts.append(_text(centre, HEIGHT - 8, labels[0], "middle"))
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    turned = f'transform="rotate(-90 12 {middle})"'
    style = f'text-anchor="middle" fill="{_INK}" {turned}'
    return [*parts, f'<text x="12" y="{middle}" {style}>{html.escape(labels[1])}</text>']


def _legend(names: Iterable[str], colors: Mapping[str, str]) -> list[str]:
    """To the right of the plot; many names stand closer."""
    names = list(names)
    left, step = WIDTH - _RIGHT + 12, min(16.0, (HEIGHT - _TOP) / max(len(names), 1))
    parts = []
    for row, name in enumerate(names):
        y, size = _TOP + step * row, min(10.0, 0.8 * step)
        parts.append(f'<rect x="{left}" y="{y:.1f}" width="10" height="{size:.1f}" fill="{colors[name]}"/>')
        parts.append(_text(left + 14, y + size - 1, name, "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{_INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(text)}</text>'
