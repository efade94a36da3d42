"""Arrays by name, with words about them, in one file: .safetensors or .npz, checked, without unpickling."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes
from sparse3d.io.reading import read_bytes

ARRAY_ENDINGS = (".safetensors", ".npz")
_WORDS = "__words__"
# What a compressed file may promise for each of its bytes; arrays of coordinates compress to a tenth.
_MOST_GROWTH, _FREE = 200, 1 << 24


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], words: Mapping[str, str]) -> None:
    """Write atomically. ValueError for another ending."""
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    match Path(path).suffix.lower():
        case ".safetensors":
            write_bytes(path, safetensors.numpy.save(whole, metadata=dict(words)))
        case ".npz":
            file = io.BytesIO()
            np.savez_compressed(file, **whole, **{_WORDS: np.array(json.dumps(dict(words)))})  # pyright: ignore
            write_bytes(path, file.getvalue())
        case _:
            raise ValueError(f"{path}: arrays are written as {' or '.join(ARRAY_ENDINGS)}")


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and words. DataError for a file that is damaged, or would need more memory than it can mean."""
    data = read_bytes(path)
    if Path(path).suffix.lower() == ".safetensors":
        try:
            arrays = safetensors.numpy.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return arrays, {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(path, f"no safetensors file, or a damaged one: {error}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            promised = sum(info.file_size for info in archive.infolist())
        if promised > _FREE + _MOST_GROWTH * len(data):
            raise DataError(path, f"promises {promised} bytes in {len(data)}: refused")
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        words = json.loads(str(arrays.pop(_WORDS, "{}")))
        return arrays, {str(k): str(v) for k, v in words.items()}
    except DataError:
        raise
    except Exception as error:
        # Which errors come through from zip files and numpy's headers (zlib.error, ...) is nowhere said.
        raise DataError(path, f"no .npz file, or a damaged one: {error}") from error
