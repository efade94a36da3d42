"""Bytes of files. Headers are looked at before they are believed: what they promise is compared with what is
there before memory is taken."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import MAX_SH_DEGREE
from sparse3d.geometry.memory import available_bytes


def check_fits(path: str | Path, what: str, offset: int, needed: int, size: int) -> None:
    """DataError unless `needed` bytes from `offset` on lie inside of a file of `size` bytes."""
    if offset + needed > size:
        raise DataError(
            path,
            f"{what} need {needed} bytes from offset {offset} on, {max(size - offset, 0)} are there: "
            "cut off, or a header that is wrong",
        )


def check_count(path: str | Path, count: int) -> None:
    """DataError for none."""
    if count < 1:
        raise DataError(path, f"holds {count} Gaussians")


def check_unpacks(path: str | Path, count: int, needed: int, packed: int, most: int) -> None:
    """DataError where `packed` bytes cannot hold the `needed` ones of `count` Gaussians, as at most `most`
    come of one, and where these are more than there is memory for. To be asked before memory is taken."""
    if needed > most * packed:
        come = f"{packed} bytes, of which no more than {most * packed} come"
        raise DataError(path, f"promises {count} Gaussians in {come}: refused")
    check_memory(path, f"{count} Gaussians", needed)


def check_memory(path: str | Path, what: str, needed: int) -> None:
    """DataError where there is not as much memory."""
    free = available_bytes()
    if free is not None and needed > free:
        raise DataError(path, f"{what} need {needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free")


def degree_of_rest(path: str | Path, values: int) -> int:
    """SH degree from the number of values beyond the first three: 0, 9, 24, 45 or 72."""
    for degree in range(MAX_SH_DEGREE + 1):
        if 3 * (degree + 1) ** 2 - 3 == values:
            return degree
    raise DataError(path, f"{values} values of spherical harmonics, expected 0, 9, 24, 45 or 72")


def take(file: BinaryIO, path: str | Path, kind: np.dtype, count: int) -> np.ndarray:
    """The next `count` of a kind; DataError where a file that was long enough has become shorter."""
    offset = file.tell()
    values = np.fromfile(file, kind, count)
    if len(values) != count:
        raise DataError(path, f"has become shorter: {len(values)} of {count} values from offset {offset} on")
    return values


def write_all(file: BinaryIO, values: np.ndarray) -> None:
    """All bytes of an array, which an unbuffered file may take in several pieces."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    while data:
        data = data[file.write(data) :]
