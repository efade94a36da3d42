"""Files of the nuScenes release: tables (JSON arrays of records) and scans (.pcd.bin)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.reading import read_bytes, read_text

_SPACE = " \t\r\n"


def read_rows(path: str | Path, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records of a table, one after the other: the largest has millions, which would not fit into memory
    as Python objects. DataError for text that is no such table, and for a record without one of `keys`.
    """
    text = read_text(path)
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    if text[place : place + 1] != "[":
        raise DataError(path, "not a table of nuScenes: expected a JSON array of records")
    place = _skip(text, place + 1)
    row = 0
    while text[place : place + 1] != "]":
        try:
            record, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"record {row} at character {place} is not JSON; truncated?") from error
        if not isinstance(record, dict):
            raise DataError(path, f"record {row} is {type(record).__name__}, expected an object")
        lacking = [key for key in keys if key not in record]
        if lacking:
            raise DataError(path, f"record {row} has no {', '.join(map(repr, lacking))}")
        yield record
        row += 1
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "]":
            raise DataError(
                path, f"after record {row - 1}, at character {place}: expected , or ]; truncated?"
            )


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place


def read_nuscenes_scan(path: str | Path) -> np.ndarray:
    """A LIDAR_TOP file -> (P, 4) float32: x right, y forward, z up in metres, intensity 0 to 255. The file's
    fifth value a point, the laser's number, is left out."""
    data = read_bytes(path)
    if len(data) % 20:
        whole = len(data) // 20 * 20
        raise DataError(
            path,
            f"{len(data)} bytes are not whole points of 5 float32 (20 bytes): {len(data) - whole} bytes are "
            f"left over at offset {whole}; truncated?",
        )
    return np.frombuffer(data, dtype="<f4").reshape(-1, 5)[:, :4].copy()
