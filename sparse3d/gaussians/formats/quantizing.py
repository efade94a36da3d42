"""Numbers in few bits: fractions, opacities, quaternions.

Smallest three: of a quaternion of length 1 the entry that is largest in magnitude is left out and made
positive (q and -q are one rotation); its place and the three others, each within +-sqrt(1/2), say all.
"""

import numpy as np
from torch import Tensor

from sparse3d.gaussians.cloud import SH0
from sparse3d.gaussians.repair import normalized

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers to the nearest of 0 to 255, as uint8; NaN is 0."""
    return np.clip(np.rint(np.nan_to_num(values, posinf=255, neginf=0)), 0, 255).astype(np.uint8)


def opacity_bytes(opacities: Tensor) -> np.ndarray:
    """Logits -> uint8, 255 for 1."""
    return to_bytes(255 * opacities.sigmoid().numpy())


def logits(opacity: np.ndarray) -> np.ndarray:
    """Opacities -> logits, float32: -inf for 0, +inf for 1, NaN outside of [0, 1]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        opacity = opacity.astype(np.float64)
        return (np.log(opacity) - np.log1p(-opacity)).astype(np.float32)


def colors_of(sh0: Tensor) -> np.ndarray:
    """(N, 1, 3) -> (N, 3): the colour without the harmonics that turn with the view; 0 to 1 and beyond."""
    return 0.5 + SH0 * sh0[:, 0].numpy()


def sh0_of(colors: np.ndarray) -> np.ndarray:
    """The inverse of `colors_of`, float32 (N, 1, 3)."""
    with np.errstate(over="ignore"):  # an infinity is for `repair` to tell
        return ((colors - 0.5) / SH0).astype(np.float32)[:, None]


def smallest_three(quats: Tensor, order: str = "wxyz") -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) wxyz of any length -> (N,) place of the largest in `order`, (N, 3) the others."""
    unit = normalized(quats)[0].numpy()[:, ["wxyz".index(c) for c in order]]
    largest = np.abs(unit).argmax(1)
    sign = np.where(np.take_along_axis(unit, largest[:, None], 1) < 0, -1, 1)
    return largest, np.take_along_axis(unit * sign, _OTHERS[largest], 1)


def from_smallest_three(largest: np.ndarray, others: np.ndarray, order: str = "wxyz") -> np.ndarray:
    """The inverse: float32 (N, 4) wxyz of length 1. Others that are too long together leave 0 for the largest
    and are shortened."""
    others = others.astype(np.float32)
    quats = np.empty((len(others), 4), dtype=np.float32)
    np.put_along_axis(quats, _OTHERS[largest], others, 1)
    square = (others * others).sum(1)
    np.put_along_axis(quats, largest[:, None], np.sqrt(np.maximum(1 - square, 0))[:, None], 1)
    quats = quats[:, [order.index(c) for c in "wxyz"]]
    return quats / np.sqrt(np.maximum(square, 1))[:, None]
