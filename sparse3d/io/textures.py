"""Pictures that paint meshes: within a file, or beside it."""

import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from sparse3d.errors import DataError
from sparse3d.io.files import atomic_path
from sparse3d.io.images import read_image

_log = logging.getLogger(__name__)


def png_of(texture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> the bytes of a .png."""
    file = io.BytesIO()
    Image.fromarray(texture).save(file, format="PNG")
    return file.getvalue()


def write_texture(path: str | Path, texture: np.ndarray) -> None:
    """(H, W, 3) uint8 -> a .png; atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(texture).save(temporary, format="PNG")


def texture_beside(path: str | Path, name: str) -> np.ndarray | None:
    """(H, W, 3) uint8: the picture that a mesh file names, below the file's own folder. None, with a warning,
    where there is none: a mesh without its paint is still one. DataError where it is damaged."""
    folder = Path(path).parent.resolve()
    found = (folder / name.strip().replace("\\", "/")).resolve()
    if not found.is_relative_to(folder) or not found.is_file():
        _log.warning("%s: its texture %r is not beside it; read without", path, name)
        return None
    return np.ascontiguousarray(read_image(found)[..., :3])


def texture_within(path: str | Path, data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 of the bytes of a picture that stands in a file. DataError where it is damaged."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(path, f"its texture is damaged: {error}") from error
