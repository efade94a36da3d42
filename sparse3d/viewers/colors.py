"""Colours of the pictures: one per class, and a ramp for heights, both made for a dark background."""

import numpy as np

# Classes take these in turn. Neighbours differ in hue and in lightness, so they stay apart for colour-blind
# readers; none is as blue or as grey as the points are.
CLASS_COLORS = (
    (255, 170, 51),
    (255, 95, 140),
    (90, 215, 255),
    (190, 140, 255),
    (255, 230, 110),
    (120, 235, 150),
    (255, 120, 80),
    (200, 220, 255),
)

# Low to high: slate, blue, teal, pale green, cream. Lightness rises all the way.
_RAMP = np.array(
    [(66, 84, 140), (58, 124, 190), (48, 176, 188), (160, 220, 160), (252, 244, 214)], dtype=np.float32
)


def class_color(label: int) -> tuple[int, int, int]:
    """RGB in 0..255 of a class index; indices beyond the palette start over."""
    return CLASS_COLORS[label % len(CLASS_COLORS)]


def height_colors(fraction: np.ndarray) -> np.ndarray:
    """Fractions (N,) of the height range, clipped to [0, 1] -> (N, 3) float32 RGB in 0..255."""
    at = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(fraction, at, _RAMP[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.float32)
