"""A labelled scan from above: every point in the colour of its class, with a legend of what occurs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

# RGB of SemanticKITTI's classes on a dark background: vehicles blue to cyan, people red, what one drives or
# walks on in greys and violets, buildings amber, plants green.
SEMANTIC_COLORS: dict[str, tuple[int, int, int]] = {
    "car": (80, 160, 255),
    "bicycle": (110, 235, 235),
    "motorcycle": (60, 200, 200),
    "truck": (40, 90, 215),
    "other-vehicle": (120, 120, 255),
    "person": (255, 60, 60),
    "bicyclist": (255, 70, 200),
    "motorcyclist": (190, 30, 120),
    "road": (128, 122, 140),
    "parking": (190, 140, 200),
    "sidewalk": (176, 90, 190),
    "other-ground": (140, 60, 90),
    "building": (255, 190, 60),
    "fence": (240, 130, 70),
    "vegetation": (50, 170, 70),
    "trunk": (160, 105, 55),
    "terrain": (140, 215, 100),
    "pole": (255, 240, 150),
    "traffic-sign": (255, 255, 90),
}
UNLABELLED = (70, 74, 86)
_BACKGROUND = (11, 13, 20)
_TEXT = (226, 230, 240)


def draw_semantic(
    points: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    *,
    reach: float = 50.0,
    pixels_per_metre: float = 10.0,
    title: str = "",
) -> Image.Image:
    """Picture of the square of `reach` metres around the LiDAR from above, x up and y to the left, the
    highest points on top.

    `points` (N, >=3) in metres, `labels` (N,) positions in `class_names`, negative for none. Names that are
    not SemanticKITTI's get the colour of unlabelled points. ValueError for lengths that differ.
    """
    xyz = np.asarray(points, dtype=np.float32).reshape(-1, np.shape(points)[-1] if np.size(points) else 3)
    classes = np.asarray(labels, dtype=np.int64)
    if classes.shape != (len(xyz),):
        raise ValueError(f"{classes.shape} labels for {len(xyz)} points")
    side = max(1, round(2 * reach * pixels_per_metre))
    table = np.array([*(SEMANTIC_COLORS.get(n, UNLABELLED) for n in class_names), UNLABELLED], dtype=np.uint8)
    # Comparisons with nan are false.
    seen = (np.abs(xyz[:, :2]) < reach).all(axis=1) & np.isfinite(xyz[:, 2])
    xyz, classes = xyz[seen], np.where(classes[seen] < 0, len(class_names), classes[seen])
    order = np.argsort(xyz[:, 2], kind="stable")
    xyz, classes = xyz[order], classes[order]
    row, column = (np.floor((reach - xyz[:, axis]) * pixels_per_metre).astype(np.int64) for axis in (0, 1))
    canvas = np.full((side, side, 3), _BACKGROUND, dtype=np.uint8)
    for down in (0, 1):
        for across in (0, 1):
            canvas[np.clip(row + down, 0, side - 1), np.clip(column + across, 0, side - 1)] = table[classes]
    picture = Image.fromarray(canvas)
    _draw_legend(picture, classes, class_names, table, title)
    return picture


def _draw_legend(
    picture: Image.Image, classes: np.ndarray, class_names: Sequence[str], table: np.ndarray, title: str
) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    names = [*class_names, "unlabelled"]
    if title:
        draw.text((10, 8), title, fill=_TEXT, font=font)
    present = np.unique(classes).tolist()
    for k, label in enumerate(present):
        top = picture.height - 20 * (len(present) - k) - 6
        draw.rectangle((10, top, 24, top + 12), fill=tuple(table[label].tolist()))
        draw.text((32, top + 6), names[label], fill=_TEXT, font=font, anchor="lm")
