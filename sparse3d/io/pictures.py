"""Pictures, depth maps and animations to files, each whole or not there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sparse3d.io.files import atomic_path

DEPTH_UNIT = 1e-3  # metres of a step of 16 bits, as RGB-D cameras have it
_MOST = 65534  # 65535 is no return for some readers


def write_picture(path: str | Path, color: np.ndarray) -> None:
    """(H, W, 3) in [0, 1] -> PNG of 8 bits."""
    pixels = np.rint(np.clip(color, 0, 1) * 255).astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def write_depth(path: str | Path, depth: np.ndarray) -> None:
    """(H, W) metres -> PNG of 16 bits, millimetres; 0 where it is unknown (NaN), 0 or less, or beyond 65.534
    m. `sparse3d.io.images.read_depth` reads it."""
    with np.errstate(invalid="ignore"):
        steps = np.rint(depth / DEPTH_UNIT)
        known = (steps >= 1) & (steps <= _MOST)  # false for NaN
    with atomic_path(path) as temporary:
        Image.fromarray(np.where(known, steps, 0).astype(np.uint16)).save(temporary, format="PNG")


def write_animation(path: str | Path, frames: Sequence[str | Path], seconds: float) -> None:
    """Image files of one size -> .webp or .gif that repeats without end, `seconds` a frame; one frame is in
    memory at a time."""
    kind = Path(path).suffix.lower()
    if kind not in (".webp", ".gif"):
        raise ValueError(f"{path}: an animation is written as .webp or .gif")
    options = {"quality": 85, "method": 4} if kind == ".webp" else {"disposal": 1}

    def opened(some: Sequence[str | Path]):
        for frame in some:
            with Image.open(frame) as image:
                yield image.convert("RGB")

    first = next(opened(frames[:1]))
    with atomic_path(path) as temporary:
        first.save(
            temporary,
            format=kind[1:].upper(),
            save_all=True,
            append_images=opened(frames[1:]),
            duration=round(1000 * seconds),
            loop=0,
            **options,
        )
