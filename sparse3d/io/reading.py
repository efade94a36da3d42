"""Files opened, or whole in memory, with a DataError that says what is wrong with the path."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sparse3d.errors import DataError


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


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; a DataError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, problem(error)) from error


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file; a DataError with the offset where it is not text."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not a text file: byte {error.start} is not UTF-8") from error


def problem(error: OSError) -> str:
    """What went wrong with a file, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return error.strerror or str(error)
