"""A scene in perspective as a picture, drawn on the CPU with numpy and without a display.

Points are squares of a few centimetres, nearer ones over farther ones; the lines of boxes are faint where
points hide them. Everything is drawn at `_OVERSAMPLING` times the size and reduced at the end. Camera axes:
x right, y down, z forward; pixels are (column, row) with centres at +0.5.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sparse3d.viewers.colors import class_color
from sparse3d.viewers.scene import TRUTH_COLOR, Boxes, Coloring, Scene, box_lines

_OVERSAMPLING = 2
_BACKGROUND = (11, 13, 20)
_RING = (50, 57, 78)
_TEXT = (226, 230, 240)
_NEAR = 0.1  # metres before the eye
_FAR_AWAY = np.uint64(np.iinfo(np.uint64).max)


@dataclass(frozen=True)
class Camera:
    """Where one looks from and to, metres in the LiDAR frame; +z is up in the picture."""

    eye: tuple[float, float, float] = (-16.0, 0.0, 11.0)
    target: tuple[float, float, float] = (14.0, 0.0, -2.0)
    field_of_view: float = 60.0  # degrees, across
    size: tuple[int, int] = (1600, 900)  # pixels

    def __post_init__(self):
        if not 0 < self.field_of_view < 180 or min(self.size) < 1:
            raise ValueError(
                f"field_of_view must lie in (0, 180) and size above 0, got {self.field_of_view}, {self.size}"
            )
        if np.allclose(self.eye[:2], self.target[:2]):
            raise ValueError(f"the camera at {self.eye} looks straight up or down; move it aside")

    def scaled(self, factor: int) -> "Camera":
        """The same view with so many times the pixels."""
        width, height = self.size
        return Camera(self.eye, self.target, self.field_of_view, (width * factor, height * factor))

    @property
    def focal_length(self) -> float:
        """In pixels."""
        return self.size[0] / 2 / math.tan(math.radians(self.field_of_view) / 2)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) in the LiDAR frame -> (..., 3) right, down, forward."""
        forward = np.subtract(self.target, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right = right / np.linalg.norm(right)
        return (points - np.array(self.eye)) @ np.stack([right, np.cross(forward, right), forward]).T

    def to_pixels(self, seen: np.ndarray) -> np.ndarray:
        """(..., 3) in camera axes, before the eye -> (..., 2) columns and rows."""
        return self.focal_length * seen[..., :2] / seen[..., 2:] + np.array(self.size) / 2


def draw_scene(
    scene: Scene,
    color_by: Coloring | None = None,
    camera: Camera = Camera(),
    *,
    truth: bool = True,
    point_size: float = 0.06,
) -> Image.Image:
    """Picture of a scene: points of `point_size` metres coloured by `color_by` (None: what tells most), range
    rings each 10 m, detections in the colours of their classes, labelled boxes (`truth`) pale."""
    by = color_by or scene.colorings[0]
    colors = scene.colors(by)
    large = camera.scaled(_OVERSAMPLING)
    canvas = _Canvas(large)
    finite = np.isfinite(scene.points[:, :3]).all(axis=1)
    xyz = scene.points[finite, :3].astype(np.float64)
    # The ground is where most of the low points are.
    ground = float(np.percentile(xyz[:, 2], 10)) if len(xyz) else 0.0
    for radius in range(10, 101, 10):
        turn = np.linspace(0, 2 * np.pi, 361)
        ring = np.stack([radius * np.cos(turn), radius * np.sin(turn), np.full(361, ground)], axis=1)
        canvas.lines(np.stack([ring[:-1], ring[1:]], axis=1), _RING, 1)
    canvas.points(xyz, colors[finite], point_size)
    if truth:
        canvas.lines(box_lines(scene.truth.boxes).reshape(-1, 2, 3), TRUTH_COLOR, 2)
    for label in np.unique(scene.found.labels).tolist():
        mine = scene.found.boxes[scene.found.labels == label]
        canvas.lines(box_lines(mine).reshape(-1, 2, 3), class_color(label), 4)
    image = Image.fromarray(canvas.pixels)
    _annotate(image, scene, by, large, truth)
    return image.reduce(_OVERSAMPLING)


class _Canvas:
    """Pixels (H, W, 3) with the depth of what each of them shows."""

    def __init__(self, camera: Camera):
        self.camera = camera
        width, height = camera.size
        self.pixels = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
        self.depth = np.full((height, width), np.inf)

    def points(self, xyz: np.ndarray, colors: np.ndarray, size: float) -> None:
        """Squares of `size` metres and at least a pixel; the nearest wins, of equally near ones the first."""
        seen = self.camera.to_camera(xyz)
        before = seen[:, 2] > _NEAR
        seen, colors = seen[before], colors[before]
        pixels = np.floor(self.camera.to_pixels(seen)).astype(np.int64)
        width, height = self.camera.size
        reach = np.clip(self.camera.focal_length * size / seen[:, 2] / 2, 0.5, 6.0)
        # Depth in tenths of a millimetre above the point's number: the smallest key is the nearest point.
        key = (np.minimum(seen[:, 2] * 1e4, 2**31).astype(np.uint64) << np.uint64(32)) + np.arange(
            len(seen), dtype=np.uint64
        )
        nearest = np.full(width * height, _FAR_AWAY)
        for down in range(-6, 7):
            for across in range(-6, 7):
                # A square of 2 r pixels covers the offsets from -r (included) to r.
                covered = (-reach <= down) & (down < reach) & (-reach <= across) & (across < reach)
                column, row = pixels[covered, 0] + across, pixels[covered, 1] + down
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                np.minimum.at(nearest, row[inside] * width + column[inside], key[covered][inside])
        shown = np.flatnonzero(nearest != _FAR_AWAY)
        number = (nearest[shown] & np.uint64(2**32 - 1)).astype(np.int64)
        self.pixels.reshape(-1, 3)[shown] = colors[number]
        self.depth.ravel()[shown] = seen[number, 2]

    def lines(self, ends: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
        """(L, 2, 3) both ends of each line; where something nearer is drawn already only a third of the
        colour shows."""
        for a, b in self.camera.to_camera(ends.astype(np.float64)):
            if a[2] < _NEAR and b[2] < _NEAR or not np.isfinite([a, b]).all():
                continue
            if a[2] < _NEAR:
                a = b + (a - b) * (b[2] - _NEAR) / (b[2] - a[2])
            if b[2] < _NEAR:
                b = a + (b - a) * (a[2] - _NEAR) / (a[2] - b[2])
            self._line(a, b, color, thickness)

    def _line(self, a: np.ndarray, b: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
        width, height = self.camera.size
        start, end = self.camera.to_pixels(np.stack([a, b]))
        part = _inside(start, end, width, height)
        if part is None:
            return
        steps = max(1, math.ceil(np.abs(end - start).max() * (part[1] - part[0])))
        at = np.linspace(part[0], part[1], steps + 1)
        # 1 / depth is what runs evenly along a line in a picture.
        depth = 1 / ((1 - at) / a[2] + at / b[2])
        place = np.floor(start + at[:, None] * (end - start)).astype(np.int64)
        offsets = np.arange(thickness) - thickness // 2
        column = (place[:, 0, None, None] + offsets[None, :, None]).repeat(thickness, axis=2)
        row = (place[:, 1, None, None] + offsets[None, None, :]).repeat(thickness, axis=1)
        depth = np.broadcast_to(depth[:, None, None], column.shape)
        kept = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        flat, index = np.unique(row[kept] * width + column[kept], return_index=True)
        # A box stands on points: a hand's breadth does not hide it.
        hidden = depth[kept][index] > self.depth.ravel()[flat] + 0.15
        pixels = self.pixels.reshape(-1, 3)
        faint = pixels[flat] * 0.65 + np.array(color) * 0.35
        pixels[flat] = np.where(hidden[:, None], faint.astype(np.uint8), np.array(color, dtype=np.uint8))


def _inside(start: np.ndarray, end: np.ndarray, width: int, height: int) -> tuple[float, float] | None:
    """The part [from, to] of a line that lies within the picture (Liang and Barsky); None where none does."""
    low, high = 0.0, 1.0
    for axis, limit in ((0, width), (1, height)):
        change = end[axis] - start[axis]
        for edge, sign in ((0.0, -1.0), (float(limit), 1.0)):
            room = sign * (edge - start[axis])
            if change == 0:
                if room < 0:
                    return None
            elif sign * change > 0:
                high = min(high, room / (sign * change))
            else:
                low = max(low, room / (sign * change))
    return (low, high) if low < high else None


def _annotate(image: Image.Image, scene: Scene, by: Coloring, camera: Camera, truth: bool) -> None:
    """Title, legend and the scores of the detections."""
    unit, draw = _OVERSAMPLING, ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(14 * unit)
    draw.text((14 * unit, 10 * unit), scene.title, fill=_TEXT, font=font)
    _write_scores(draw, scene.found, camera)
    rows = scene.legend(by, truth)
    if not rows:
        return
    line = 22 * unit
    top = image.height - len(rows) * line - 18 * unit
    wide = max(draw.textlength(row.text, font=font) for row in rows) + 46 * unit
    draw.rounded_rectangle(
        (10 * unit, top, 10 * unit + wide, image.height - 10 * unit), 6 * unit, fill=(20, 24, 36, 216)
    )
    for k, row in enumerate(rows):
        middle = top + 4 * unit + (k + 0.5) * line
        swatch = (20 * unit, middle - 6 * unit, 32 * unit, middle + 6 * unit)
        fill = None if row.framed else row.color
        draw.rectangle(swatch, fill=fill, outline=row.color, width=2 * unit)
        draw.text((40 * unit, middle), row.text, fill=_TEXT, font=font, anchor="lm")


def _write_scores(draw: ImageDraw.ImageDraw, found: Boxes, camera: Camera) -> None:
    """Above each box, the best first; where another number stands already, none."""
    if found.scores is None:
        return
    font = ImageFont.load_default(11 * _OVERSAMPLING)
    taken: list[tuple[float, float, float, float]] = []
    for k in np.argsort(-found.scores, kind="stable").tolist():
        top = found.boxes[k, :3] + [0, 0, found.boxes[k, 5] / 2 + 0.3]
        seen = camera.to_camera(top.astype(np.float64))
        if not seen[2] > 1.0:
            continue
        column, row = camera.to_pixels(seen).tolist()
        text = f"{found.scores[k]:.2f}"
        area = draw.textbbox((column, row), text, font=font, anchor="mb")
        if any(area[0] < r and l < area[2] and area[1] < b and t < area[3] for l, t, r, b in taken):
            continue
        taken.append(area)
        color = class_color(int(found.labels[k]))
        draw.text(
            (column, row), text, fill=color, font=font, anchor="mb", stroke_width=2, stroke_fill=_BACKGROUND
        )
