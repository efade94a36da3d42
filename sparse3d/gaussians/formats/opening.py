"""Bytes of files. Headers are looked at before they are believed: what they promise is compared with what is
there before memory is taken."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import MAX_SH_DEGREE
from sparse3d.io.reading import problem

# Formats that compress could promise anything. Trained Gaussians take 8 bytes each and more in all of them;
# so many without a question, and so many more for each byte of the file.
FREE_COUNT, COUNT_A_BYTE = 1 << 16, 8


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size; a DataError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except DataError:
        raise
    except OSError as error:
        raise DataError(path, problem(error)) from error


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


def check_plausible(path: str | Path, count: int, size: int) -> None:
    """DataError for a count that a compressed file of `size` bytes cannot mean."""
    check_count(path, count)
    if count > FREE_COUNT + COUNT_A_BYTE * size:
        raise DataError(path, f"promises {count} Gaussians in {size} bytes: refused")


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
