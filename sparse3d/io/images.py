"""Photos, masks and depth maps from image files, at the size that is asked for.

Photos are read as they are stored: an EXIF orientation is not applied, since the cameras that structure from
motion found are those of the stored pixels. Shrinking averages over exactly the area of each new pixel, with
colours weighted by their opacity.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sparse3d.errors import DataError

# Depth of sensors that write 16 bits: 0 is no return, 65535 is what 7-Scenes writes for the same.
_NO_DEPTH = (0, 65535)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file; whatever is wrong with it as a DataError."""
    if not Path(path).is_file():
        raise DataError(path, "no such file")
    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(path, "not an image, or a damaged one") from error
    except Image.DecompressionBombError as error:
        raise DataError(path, f"refused: {error}") from error
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise DataError(path, f"damaged or truncated image: {error}") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height, from the header alone."""
    if Path(path).suffix.lower() == ".exr":
        height, width = _read_exr(path).shape[:2]
        return width, height
    if Path(path).suffix.lower() == ".npy":
        height, width = (read_array(path).shape + (0, 0))[:2]
        return width, height
    with _opened(path) as image:
        return image.size


def image_has_alpha(path: str | Path) -> bool:
    """Whether a photo has an opacity, from the header alone."""
    with _opened(path) as image:
        return _has_alpha(image)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """A photo as (height, width, 3) uint8, or (height, width, 4) where the file has opacity; resampled to
    `size` (width, height). Grey images get three equal channels, 16 bits a channel are rounded to 8."""
    with _opened(path) as image:
        if image.mode == "CMYK":
            raise DataError(
                path,
                "four channels of ink (CMYK), no opacity among them; save it as RGB, or as PNG for alpha",
            )
        if image.mode.startswith("I;16") or image.mode == "I":
            grey = np.asarray(image, dtype=np.float64)
            # 65535 becomes 255: one step of 8 bits is 257 of 16.
            image = Image.fromarray(np.clip(np.rint(grey / 257), 0, 255).astype(np.uint8))
        image = image.convert("RGBA" if _has_alpha(image) else "RGB")
        # Resampled in floats: rounding colours that are multiplied by a small opacity would lose them.
        return np.asarray(image) if size in (None, image.size) else resample(np.asarray(image), size)


def resample(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) or (H, W), uint8 or float -> the same at `size` (width, height): each new pixel is the mean
    over its area; of four channels the last one is opacity, which weights the others."""
    height, width = pixels.shape[:2]
    planes = pixels.reshape(height, width, -1).astype(np.float32)
    if planes.shape[2] == 4:
        planes[..., :3] *= planes[..., 3:]
    shrunk = np.stack([_box(planes[..., c], size) for c in range(planes.shape[2])], -1)
    if planes.shape[2] == 4:
        opacity = shrunk[..., 3:]
        shrunk[..., :3] = np.divide(
            shrunk[..., :3], opacity, out=np.zeros_like(shrunk[..., :3]), where=opacity > 0
        )
    shrunk = shrunk.reshape(*shrunk.shape[:2], *pixels.shape[2:])
    if np.issubdtype(pixels.dtype, np.floating):
        return shrunk.astype(pixels.dtype)
    return np.clip(np.rint(shrunk), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def _box(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BOX))


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """(height, width) bool: true where the file is brighter than half (the opacity, where it has one that
    varies)."""
    pixels = read_image(path, size)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        return pixels[..., 3] > 127
    return pixels[..., :3].max(-1) > 127


def read_depth(path: str | Path, unit: float, size: tuple[int, int] | None = None) -> np.ndarray:
    """(height, width) float32 metres along the optical axis, NaN where unknown.

    .png with 16 bits, .tif, .exr (first channel) and .npy hold depth in steps of `unit` metres. 0, negative
    and non-finite values, and 65535 in 16 bits, are unknown. Resampled by the nearest pixel: a mean over an
    edge would be a depth where nothing is.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        raw = read_array(path)
    elif suffix == ".exr":
        raw = _read_exr(path)
    else:
        with _opened(path) as image:
            if image.mode not in ("I;16", "I;16B", "I;16L", "I", "F"):
                raise DataError(
                    path,
                    f"holds {image.mode} of 8 bits, no depth map; expected one channel of 16 bits or floats",
                )
            raw = np.asarray(image)
    raw = raw[..., 0] if raw.ndim == 3 else raw
    if raw.ndim != 2 or not raw.size or not np.issubdtype(raw.dtype, np.number):
        raise DataError(path, f"a depth map is (height, width) numbers, this is {raw.dtype} {raw.shape}")
    integer = np.issubdtype(raw.dtype, np.integer)
    depth = (raw * np.float64(unit)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        unknown = ~np.isfinite(depth) | ~(depth > 0)
    if integer:
        unknown |= np.isin(raw, _NO_DEPTH)
    depth[unknown] = np.nan
    if size is None or size == depth.shape[::-1]:
        return depth
    rows = ((np.arange(size[1]) + 0.5) * depth.shape[0] / size[1]).astype(np.int64)
    columns = ((np.arange(size[0]) + 0.5) * depth.shape[1] / size[0]).astype(np.int64)
    return depth[rows[:, None], columns]


def read_array(path: str | Path) -> np.ndarray:
    """A .npy file of plain numbers; nothing is unpickled."""
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError) as error:
        raise DataError(path, f"not a whole .npy of plain numbers: {error}") from error


def _read_exr(path: str | Path) -> np.ndarray:
    from sparse3d.io.exr import read_exr  # brings an optional package

    return read_exr(path)
