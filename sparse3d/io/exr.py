"""OpenEXR files through the reference implementation's own bindings (extra `exr`).

Chosen over a reader of our own because EXR has ten compressions and tiled, deep and multi-part layouts; the
bindings are maintained with the format, come as wheels without dependencies, and are imported here alone.
"""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError, require_extra

# Names under which renderers store depth, before any other channel is tried.
_DEPTH_NAMES = ("Z", "z", "depth", "Depth", "Y", "V", "R")


def read_exr(path: str | Path) -> np.ndarray:
    """(height, width) float32 of one channel: depth where a channel has such a name, else the first one.

    DataError for what is no EXR of scan lines or tiles; MissingExtraError without the bindings.
    """
    exr = require_extra("OpenEXR", "exr")
    if not Path(path).is_file():
        raise DataError(path, "no such file")
    try:
        with exr.File(str(path), separate_channels=True) as file:
            channels = {name: np.asarray(c.pixels) for name, c in file.channels().items()}
    except Exception as error:  # the bindings raise RuntimeError, ValueError and their own
        raise DataError(path, f"not a readable EXR: {error}") from error
    if not channels:
        raise DataError(path, "an EXR without channels")
    name = next((name for name in _DEPTH_NAMES if name in channels), sorted(channels)[0])
    plane = channels[name]
    if plane.ndim != 2:
        raise DataError(path, f"channel {name} is {plane.shape}, expected (height, width)")
    return plane.astype(np.float32)
