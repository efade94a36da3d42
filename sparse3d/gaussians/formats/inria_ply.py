"""The .ply of "3D Gaussian Splatting" (arXiv 2308.04079) and of "2D Gaussian Splatting" (arXiv 2403.17888).

One element `vertex` with the properties x y z, [nx ny nz,] f_dc_0..2, f_rest_*, opacity (logit), scale_0..2
(natural logarithm; surfels have scale_0..1), rot_0..3 (w x y z, of any length). Properties are found by
name, in any order and of any number type; others are skipped. f_rest is channel-major: all coefficients of
red, then of green, then of blue. Axes are those of the cameras of training.

A binary little endian file of floats is one table: what is read are views of it, with the strides of its
rows.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.frames import WORLD
from sparse3d.gaussians.formats.opening import check_count, check_fits, degree_of_rest, take, write_all
from sparse3d.gaussians.formats.source import Splats
from sparse3d.io.files import atomic_path
from sparse3d.io.ply_header import ORDERS, Element, Header, row_type
from sparse3d.io.point_fields import parse_table
from sparse3d.io.reading import opened

_FLAT, _SOLID = ("scale_0", "scale_1"), ("scale_0", "scale_1", "scale_2")
_MEANS, _DC, _QUATS = ("x", "y", "z"), ("f_dc_0", "f_dc_1", "f_dc_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
# Rows that are put together at once for writing: 2 MB, which stays in a core's cache.
_WRITTEN_AT_ONCE = 8192


def open_inria_ply(path: str | Path, header: Header, size: int) -> Splats:
    """The Gaussians of a file whose header is known. Raises DataError."""
    element, offset, skipped_lines = _vertices(path, header)
    names = [name for name, _ in element.properties]
    rest = 0
    while f"f_rest_{rest}" in names:
        rest += 1
    degree, surfels = degree_of_rest(path, rest), "scale_2" not in names
    columns = _Columns(names, rest, surfels)
    missing = [name for name in columns.needed if name not in names]
    if missing:
        raise DataError(
            path, f"element 'vertex' has no property {missing[0]!r}: not Gaussians; it has {names}"
        )
    check_count(path, element.count)
    row = row_type(element, ORDERS[header.encoding])
    if header.encoding != "ascii":
        check_fits(path, f"{element.count} Gaussians", offset, element.count * row.itemsize, size)

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        if header.encoding == "ascii":
            table = _text_table(path, header, element, skipped_lines)
            for begin in range(0, element.count, rows):
                yield columns.of_table(table[begin : begin + rows])
            return
        plain = all(row[n] == np.dtype("<f4") for n in range(len(names)))
        with opened(path) as (file, _):
            file.seek(offset)
            for begin in range(0, element.count, rows):
                count = min(rows, element.count - begin)
                values = take(
                    file, path, np.dtype("<f4") if plain else row, count * (len(names) if plain else 1)
                )
                table = values.reshape(count, -1) if plain else _as_floats(values)
                yield columns.of_table(table)

    return Splats(element.count, degree, surfels, WORLD, blocks)


def write_inria_ply(path: str | Path, splats: Splats, *, normals: bool = True) -> None:
    """Write binary little endian floats, block by block, atomically. `normals`: zeros, as INRIA's own files
    have them and some readers expect them."""
    rest = 3 * (splats.sh_degree + 1) ** 2 - 3
    scales = _FLAT if splats.surfels else _SOLID
    names = [*_MEANS, *(("nx", "ny", "nz") if normals else ()), *_DC, *(f"f_rest_{n}" for n in range(rest))]
    names += ["opacity", *scales, *_QUATS]
    begin_dc = 6 if normals else 3
    with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as file:
        header = "".join(f"property float {name}\n" for name in names)
        text = f"ply\nformat binary_little_endian 1.0\nelement vertex {splats.count}\n{header}end_header\n"
        file.write(text.encode("ascii"))
        table = torch.zeros(_WRITTEN_AT_ONCE, len(names))
        written = 0
        for block in splats.blocks():
            for begin in range(0, len(block), _WRITTEN_AT_ONCE):
                part = block[begin : begin + _WRITTEN_AT_ONCE]
                rows = table[: len(part)]
                rows[:, 0:3] = part.means
                at = begin_dc
                for values in (part.sh0[:, 0], part.shN, part.opacities[:, None], part.scales, part.quats):
                    width = values[0].numel()
                    if values.dim() == 3 and width:  # numpy exchanges two short axes faster than torch
                        channels = rows[:, at : at + width].unflatten(1, (3, -1))
                        np.copyto(channels.numpy(), values.numpy().swapaxes(1, 2))
                    elif width:
                        rows[:, at : at + width] = values
                    at += width
                write_all(file, rows.numpy().astype("<f4", copy=False))
            written += len(block)
        assert written == splats.count, "the blocks are not what they were said to be"


class _Columns:
    """Where the parts of a Gaussian stand in a row."""

    def __init__(self, names: list[str], rest: int, surfels: bool):
        self.rest = [f"f_rest_{n}" for n in range(rest)]
        self.scales = _FLAT if surfels else _SOLID
        self.needed = [*_MEANS, *_DC, "opacity", *self.scales, *_QUATS]
        self.place = {name: names.index(name) for name in dict.fromkeys(names)}

    def of_table(self, table: np.ndarray) -> GaussianCloud:
        """From rows of float32; views where the columns of a part stand side by side."""
        rows = torch.from_numpy(table)
        rest = (
            self._part(rows, self.rest).unflatten(1, (3, -1))
            if self.rest
            else rows.new_zeros(len(rows), 3, 0)
        )
        return GaussianCloud(
            means=self._part(rows, _MEANS),
            scales=self._part(rows, self.scales),
            quats=self._part(rows, _QUATS),
            opacities=rows[:, self.place["opacity"]],
            sh0=self._part(rows, _DC)[:, None],
            shN=rest.transpose(1, 2),
        )

    def _part(self, rows: Tensor, names: list[str] | tuple[str, ...]) -> Tensor:
        places = [self.place[name] for name in names]
        if places == list(range(places[0], places[0] + len(places))):
            return rows[:, places[0] : places[0] + len(places)]
        return rows[:, places]


def _vertices(path: str | Path, header: Header) -> tuple[Element, int, int]:
    """The element of Gaussians, and the bytes (binary) or lines (ascii) before its rows."""
    offset, lines = header.end, 0
    for element in header.elements:
        if element.name == "vertex":
            if element.has_list:
                raise DataError(path, "element 'vertex' has a list property, expected numbers")
            if not element.properties:
                raise DataError(path, "element 'vertex' has no properties")
            return element, offset, lines
        if element.has_list:
            raise DataError(
                path, f"element {element.name!r} with lists stands before 'vertex': not supported"
            )
        offset += element.count * row_type(element, ORDERS[header.encoding]).itemsize
        lines += element.count
    raise DataError(path, "no element 'vertex'")


def _as_floats(rows: np.ndarray) -> np.ndarray:
    names = rows.dtype.names or ()
    table = np.empty((len(rows), len(names)), dtype=np.float32)
    with np.errstate(over="ignore"):  # doubles beyond float32 are infinities, and are told as those
        for n, name in enumerate(names):
            table[:, n] = rows[name]
    return table


def _text_table(path: str | Path, header: Header, element: Element, skipped_lines: int) -> np.ndarray:
    with opened(path) as (file, size):
        if 2 * (element.count * len(element.properties) + skipped_lines) > size:
            raise DataError(path, f"promises {element.count} Gaussians, the file has {size} bytes of text")
        file.seek(header.end)
        text = file.read().split(b"\n", skipped_lines)[-1]
    first = header.lines + skipped_lines + 1
    table = parse_table(text, element.count, len(element.properties), path, first)
    with np.errstate(over="ignore"):
        return table.astype(np.float32)
