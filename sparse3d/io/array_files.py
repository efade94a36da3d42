"""Named arrays of one kind of thing in a file: safetensors, which nothing is unpickled from, with what it is
and its few numbers in the header."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes

_VERSION = "1"


def write_arrays(
    path: str | Path, kind: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, list[float]]
) -> None:
    """Write atomically. `numbers` are finite, by name; they are kept to the last bit."""
    header = {"format": "sparse3d", "version": _VERSION, "kind": kind}
    header["numbers"] = json.dumps({name: list(map(float, values)) for name, values in numbers.items()})
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(contiguous, header))


def read_arrays(path: str | Path) -> tuple[str, dict[str, np.ndarray], dict[str, list[float]]]:
    """Kind, arrays and numbers of a file of `write_arrays`. DataError for one that is damaged, or of another
    program or version."""
    try:
        with safetensors.safe_open(path, "np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(path, f"is no safetensors file, or is truncated ({error})") from error
    if header.get("format") != "sparse3d" or header.get("version") != _VERSION or "kind" not in header:
        raise DataError(
            path,
            f"its header says {header}; expected one of sparse3d, version {_VERSION}, with what it holds",
        )
    try:
        numbers = {name: [float(v) for v in values] for name, values in json.loads(header["numbers"]).items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(path, f"its header's numbers cannot be read ({error!r})") from error
    return header["kind"], arrays, numbers
