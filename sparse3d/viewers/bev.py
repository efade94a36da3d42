"""A LiDAR scan from above: points, predicted boxes and ground truth as a picture.

Everything is drawn at `_OVERSAMPLING` times the size and reduced at the end, which smooths lines, text and
points alike. World coordinates are those of the LiDAR frame (x forward, y left, z up, metres); pixels are
(column, row).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from sparse3d.geometry.boxes import bottom_corners
from sparse3d.viewers.colors import class_color, height_colors

_OVERSAMPLING = 2
_BACKGROUND = (11, 13, 20)
_RING = (50, 57, 78)
_RING_TEXT = (112, 122, 148)
_GROUND_TRUTH = (236, 248, 238)
_TEXT = (226, 230, 240)

Pixel = tuple[float, float]


@dataclass(frozen=True)
class BevStyle:
    """What does not change from picture to picture."""

    pixels_per_metre: float = 12.0
    forward_right: bool = False  # x points to the right edge; otherwise to the top
    height_range: tuple[float, float] = (-2.2, 1.8)  # metres, first and last colour of the points
    ring_step: float = 10.0  # metres between range rings
    point_size: int = 1  # pixels
    min_score: float = 0.0  # boxes below are not drawn
    show_scores: bool = True
    font_size: int = 13  # pixels


@dataclass(frozen=True)
class _View:
    """Maps metres to pixels of the oversampled picture."""

    bounds: tuple[float, ...]
    scale: float  # oversampled pixels per metre
    forward_right: bool

    @property
    def size(self) -> tuple[int, int]:
        x_min, y_min, _, x_max, y_max, _ = self.bounds
        forward, across = (x_max - x_min) * self.scale, (y_max - y_min) * self.scale
        width, height = (forward, across) if self.forward_right else (across, forward)
        return max(_OVERSAMPLING, round(width)), max(_OVERSAMPLING, round(height))

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """(N, 2) metres -> (N, 2) columns and rows."""
        x_min, _, _, x_max, y_max, _ = self.bounds
        across = (y_max - xy[:, 1]) * self.scale
        if self.forward_right:
            return np.stack([(xy[:, 0] - x_min) * self.scale, across], axis=1)
        return np.stack([across, (x_max - xy[:, 0]) * self.scale], axis=1)


def draw_bev(
    points: ArrayLike,
    bounds: Sequence[float],
    *,
    boxes: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    texts: Sequence[str] | None = None,
    trails: Sequence[ArrayLike] = (),
    ground_truth: ArrayLike | None = None,
    class_names: Sequence[str] = (),
    title: str = "",
    style: BevStyle = BevStyle(),
    legend: bool = True,
) -> Image.Image:
    """Picture of `bounds` (x_min, y_min, z_min, x_max, y_max, z_max) from above, the highest points on top.

    `points` (P, 3 + F) x, y, z and perhaps intensity in [0, 1]; `boxes` (K, 7) with a tick towards their
    heading, in the colour of `labels` (K,) and with `scores` (K,), or K `texts` in place of their numbers;
    `trails`: for each box the places (T, 2) that it came along; `ground_truth` (M, 7) as thin outlines. Empty
    inputs are fine. Raises ValueError for bounds that are empty and for boxes, labels, scores, texts and
    trails of different lengths. `legend`: say which class has which colour.
    """
    limits = tuple(float(b) for b in bounds)
    if len(limits) != 6 or not (limits[0] < limits[3] and limits[1] < limits[4]):
        raise ValueError(
            f"bounds are {limits}, expected x_min, y_min, z_min, x_max, y_max, z_max with min < max"
        )
    predicted, truth = _boxes("boxes", boxes), _boxes("ground_truth", ground_truth)
    classes = _column("labels", labels, len(predicted)).astype(np.int64)
    confidence = _column("scores", scores, len(predicted))
    keep = (confidence >= style.min_score) if scores is not None else np.ones(len(predicted), dtype=bool)
    if texts is not None and len(texts) != len(predicted) or trails and len(trails) != len(predicted):
        raise ValueError(f"{len(predicted)} boxes need as many texts and trails, or none")
    shown = np.flatnonzero(keep).tolist()
    told = [f"{confidence[k]:.2f}" if texts is None else texts[k] for k in shown]
    paths = [trails[k] for k in shown] if trails else []
    predicted, classes, confidence = predicted[keep], classes[keep], confidence[keep]

    view = _View(limits, style.pixels_per_metre * _OVERSAMPLING, style.forward_right)
    font = ImageFont.load_default(style.font_size * _OVERSAMPLING)
    image = Image.new("RGB", view.size, _BACKGROUND)
    draw = ImageDraw.Draw(image, "RGBA")
    _draw_rings(draw, view, style.ring_step, font)
    image.paste(*_point_layer(np.asarray(points, dtype=np.float32), view, style))
    _draw_trails(draw, view, paths, classes)
    _draw_predictions(draw, view, predicted, classes)
    for outline in _outlines(view, truth):
        draw.line([*outline, outline[0]], fill=_GROUND_TRUTH, width=_OVERSAMPLING)
    if texts is not None or (style.show_scores and scores is not None):
        _draw_texts(draw, view, predicted, classes, confidence, told, truth, font)
    if legend:
        _draw_legend(draw, view, _legend(classes, class_names, ground_truth is not None), font)
    if title:
        draw.text((12 * _OVERSAMPLING, 8 * _OVERSAMPLING), title, fill=_TEXT, font=font)
    return image.reduce(_OVERSAMPLING)


def _boxes(name: str, boxes: ArrayLike | None) -> np.ndarray:
    array = np.zeros((0, 7), dtype=np.float32) if boxes is None else np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 7), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] < 7:
        raise ValueError(f"{name} has shape {array.shape}, expected (N, 7): x, y, z, l, w, h, yaw")
    return array[:, :7]


def _column(name: str, values: ArrayLike | None, count: int) -> np.ndarray:
    array = np.zeros(count) if values is None else np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"{name} has shape {array.shape}, expected one entry for each of the {count} boxes")
    return array


def _outlines(view: _View, boxes: np.ndarray) -> list[list[Pixel]]:
    """Pixels of the four corners of each box."""
    pixels = view.pixels(bottom_corners(boxes).reshape(-1, 2)).reshape(-1, 4, 2)
    return [[(column, row) for column, row in box] for box in pixels.tolist()]


def _heading_ticks(view: _View, boxes: np.ndarray) -> list[list[Pixel]]:
    """Pixels of the two ends of each tick: the centre of the box and a place ahead of its front face."""
    ahead = boxes[:, 3] / 2 + np.minimum(1.0, 0.4 * boxes[:, 3])
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1)
    ends = np.stack([boxes[:, :2], boxes[:, :2] + ahead[:, None] * heading], axis=1)
    pixels = view.pixels(ends.reshape(-1, 2)).reshape(-1, 2, 2)
    return [[(column, row) for column, row in tick] for tick in pixels.tolist()]


def _point_layer(
    points: np.ndarray, view: _View, style: BevStyle
) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """What `Image.paste` takes: colours, place and mask. Height gives the hue, intensity the brightness."""
    width, height = view.size
    colors = np.zeros((height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    points = points.reshape(-1, points.shape[-1] if points.ndim == 2 else 3)
    points = points[np.isfinite(points[:, :3]).all(axis=1)]
    points = points[np.argsort(points[:, 2], kind="stable")]  # painted from low to high
    pixel = np.floor(view.pixels(points[:, :2])).astype(np.int64)
    low, high = style.height_range
    color = height_colors((points[:, 2] - low) / (high - low))
    if points.shape[1] > 3:
        # The square root lifts dark surfaces; most returns of a LiDAR are below 0.3.
        color *= 0.7 + 0.3 * np.sqrt(np.clip(points[:, 3:4], 0, 1))
    side = style.point_size * _OVERSAMPLING
    for across in range(side):
        for down in range(side):
            column, row = pixel[:, 0] + across - side // 2, pixel[:, 1] + down - side // 2
            inside = (0 <= column) & (column < width) & (0 <= row) & (row < height)
            colors[row[inside], column[inside]] = color[inside].astype(np.uint8)
            mask[row[inside], column[inside]] = 255
    return Image.fromarray(colors), (0, 0), Image.fromarray(mask)


def _draw_rings(draw: ImageDraw.ImageDraw, view: _View, step: float, font) -> None:
    x_min, y_min, _, x_max, y_max, _ = view.bounds
    reach = math.hypot(max(abs(x_min), abs(x_max)), max(abs(y_min), abs(y_max)))
    ((column, row),) = view.pixels(np.zeros((1, 2))).tolist()
    for k in range(1, int(reach / step) + 1):
        radius = k * step * view.scale
        circle = (column - radius, row - radius, column + radius, row + radius)
        draw.ellipse(circle, outline=_RING, width=_OVERSAMPLING)
        # On the diagonal, where neither the road nor the edge of the picture hides the number.
        corner = k * step * math.sqrt(0.5)
        ((c, r),) = view.pixels(np.array([[corner, -corner]])).tolist()
        draw.text((c, r), f"{k * step:g} m", fill=_RING_TEXT, font=font, anchor="mm")
    # The sensor: an arrow head that points forward.
    arrow = view.pixels(np.array([(1.4, 0.0), (-0.9, 0.8), (-0.4, 0.0), (-0.9, -0.8)]))
    draw.polygon([(c, r) for c, r in arrow.tolist()], fill=_TEXT)


def _draw_predictions(draw: ImageDraw.ImageDraw, view: _View, boxes: np.ndarray, labels: np.ndarray) -> None:
    ticks = _heading_ticks(view, boxes)
    for outline, tick, label in zip(_outlines(view, boxes), ticks, labels.tolist(), strict=True):
        color = class_color(label)
        draw.polygon(outline, fill=(*color, 56))
        draw.line([*outline, outline[0]], fill=color, width=2 * _OVERSAMPLING, joint="curve")
        draw.line(tick, fill=color, width=2 * _OVERSAMPLING)


def _draw_trails(draw: ImageDraw.ImageDraw, view: _View, trails, labels: np.ndarray) -> None:
    for trail, label in zip(trails, labels.tolist(), strict=bool(trails)):
        places = view.pixels(np.asarray(trail, dtype=np.float32).reshape(-1, 2)).tolist()
        if len(places) > 1:
            line = [(column, row) for column, row in places]
            draw.line(line, fill=(*class_color(label), 170), width=_OVERSAMPLING, joint="curve")


def _draw_texts(draw: ImageDraw.ImageDraw, view: _View, boxes, labels, scores, texts, truth, font) -> None:
    """Beside each box, at the first place with no box and no higher score on it; else nowhere."""
    gap = 4 * _OVERSAMPLING
    drawn = [o + t for o, t in zip(_outlines(view, boxes), _heading_ticks(view, boxes), strict=True)]
    drawn += _outlines(view, truth)
    columns, rows = [[c for c, _ in d] for d in drawn], [[r for _, r in d] for d in drawn]
    taken = [(min(c), min(r), max(c), max(r)) for c, r in zip(columns, rows, strict=True)]
    for k in np.argsort(-scores, kind="stable").tolist():
        left, top, right, bottom = taken[k]
        column, row = (left + right) / 2, (top + bottom) / 2
        text = texts[k]
        places = (
            ((right + gap, row), "lm"),
            ((left - gap, row), "rm"),
            ((column, top - gap), "mb"),
            ((column, bottom + gap), "mt"),
        )
        for place, anchor in places:
            area = draw.textbbox(place, text, font=font, anchor=anchor)
            if not any(area[0] < r and l < area[2] and area[1] < b and t < area[3] for l, t, r, b in taken):
                taken.append(area)
                color = class_color(int(labels[k]))
                # The dark rim keeps the number readable on top of points.
                rim = {"stroke_width": _OVERSAMPLING, "stroke_fill": _BACKGROUND}
                draw.text(place, text, fill=color, font=font, anchor=anchor, **rim)
                break


def _legend(
    labels: np.ndarray, class_names: Sequence[str], has_truth: bool
) -> list[tuple[str, tuple[int, int, int], bool]]:
    """Rows of text, colour and whether the swatch is filled: the classes that occur, then ground truth."""
    rows = []
    for label in np.unique(labels).tolist():
        name = class_names[label] if label < len(class_names) else f"class {label}"
        rows.append((f"{name} ({int((labels == label).sum())})", class_color(label), True))
    return rows + ([("ground truth", _GROUND_TRUTH, False)] if has_truth else [])


def _draw_legend(draw: ImageDraw.ImageDraw, view: _View, rows, font) -> None:
    """In the lower left corner, on a panel that dims what is under it."""
    if not rows:
        return
    unit = _OVERSAMPLING
    line = round(font.size * 1.55)
    width = max(draw.textlength(text, font=font) for text, _, _ in rows) + 38 * unit
    top = view.size[1] - len(rows) * line - 20 * unit
    panel = (8 * unit, top, 8 * unit + width + 8 * unit, view.size[1] - 8 * unit)
    draw.rounded_rectangle(panel, radius=6 * unit, fill=(20, 24, 36, 216), outline=(*_RING, 255))
    for k, (text, color, filled) in enumerate(rows):
        middle = top + 6 * unit + (k + 0.5) * line
        swatch = (18 * unit, middle - 5 * unit, 32 * unit, middle + 5 * unit)
        width = 2 * unit if filled else unit
        draw.rectangle(swatch, fill=(*color, 72) if filled else None, outline=color, width=width)
        draw.text((40 * unit, middle), text, fill=_TEXT, font=font, anchor="lm")
