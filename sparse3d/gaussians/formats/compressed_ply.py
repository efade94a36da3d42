"""PlayCanvas' compressed .ply: runs of 256 Gaussians, each number as a fraction of its run's range.

Three elements. `chunk`, one a run: float min_x .. max_z, min_scale_x .. max_scale_z (logarithms) and, in
newer files, min_r .. max_b (colours; 0 and 1 where they are not there). `vertex`: uint packed_position and
packed_scale of 11, 10 and 11 bits, x on top; packed_rotation, smallest three of w x y z, 2 bits for the
place of the largest and 10 for each of the others; packed_color, 8 bits each of red, green, blue and
opacity. `sh`, where there are harmonics: uchar f_rest_*, channel-major, -4 to 4.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.frames import WORLD
from sparse3d.gaussians.formats.opening import check_count, check_fits, degree_of_rest, take, write_all
from sparse3d.gaussians.formats.quantizing import (
    colors_of,
    from_smallest_three,
    logits,
    opacity_bytes,
    sh0_of,
    smallest_three,
)
from sparse3d.gaussians.formats.source import Splats, regrouped
from sparse3d.io.files import atomic_path
from sparse3d.io.ply_header import ORDERS, Element, Header, row_type
from sparse3d.io.reading import opened

_RUN = 256
_BOUNDS = tuple(f"{end}_{of}{axis}" for of in ("", "scale_") for end in ("min", "max") for axis in "xyz")
_COLOR_BOUNDS = tuple(f"{end}_{channel}" for end in ("min", "max") for channel in "rgb")
_PACKED = tuple(f"packed_{name}" for name in ("position", "rotation", "scale", "color"))
_WIDEST = 4.0  # harmonics beyond +-4 are cut
# Bounds of scales are cut to what PlayCanvas cuts them to: an infinite one would spoil its run.
_MOST_LOG_SCALE = 20.0
# Whole runs, and whole blocks in which neighbours were brought together.
_AT_ONCE = 1 << 18


def is_compressed(header: Header) -> bool:
    """Whether a .ply is of this kind."""
    return any(name == "packed_position" for e in header.elements for name, _ in e.properties)


def open_compressed_ply(path: str | Path, header: Header, size: int) -> Splats:
    """The Gaussians of a file whose header is known. Raises DataError."""
    if header.encoding == "ascii":
        raise DataError(path, "compressed Gaussians are binary, this is ascii")
    places, offset = {}, header.end
    for element in header.elements:
        if element.has_list:
            raise DataError(path, f"element {element.name!r} has a list property, expected numbers")
        kind = row_type(element, ORDERS[header.encoding])
        check_fits(
            path, f"{element.count} rows of {element.name!r}", offset, element.count * kind.itemsize, size
        )
        places[element.name] = (element, kind, offset)
        offset += element.count * kind.itemsize
    for name, needed in (("chunk", _BOUNDS), ("vertex", _PACKED)):
        if name not in places:
            raise DataError(path, f"no element {name!r}")
        _check_properties(path, places[name][0], needed, "u4" if name == "vertex" else "f4")
    (chunk, *_), (vertex, *_) = places["chunk"], places["vertex"]
    total = vertex.count
    check_count(path, total)
    if chunk.count != -(-total // _RUN):
        raise DataError(path, f"{chunk.count} chunks for {total} Gaussians, expected {-(-total // _RUN)}")
    degree = 0
    if "sh" in places:
        sh = places["sh"][0]
        degree = degree_of_rest(path, len(sh.properties))
        _check_properties(path, sh, [f"f_rest_{n}" for n in range(len(sh.properties))], "u1")
        if sh.count != total:
            raise DataError(path, f"{sh.count} rows of harmonics for {total} Gaussians")

    def rows_of(file, name: str, begin: int, count: int) -> np.ndarray:
        _, kind, at = places[name]
        file.seek(at + begin * kind.itemsize)
        return take(file, path, kind, count)

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        step = -(-rows // _RUN) * _RUN
        with opened(path) as (file, _):
            for begin in range(0, total, step):
                count = min(step, total - begin)
                runs = rows_of(file, "chunk", begin // _RUN, -(-count // _RUN))
                packed = rows_of(file, "vertex", begin, count)
                rest = None
                if degree:
                    width = len(places["sh"][0].properties)
                    rest = rows_of(file, "sh", begin, count).view(np.uint8).reshape(count, 3, width // 3)
                yield _decoded(runs, packed, rest)

    return Splats(total, degree, False, WORLD, blocks)


def _check_properties(path: str | Path, element: Element, needed, kind: str) -> None:
    found = dict(element.properties)
    for name in needed:
        if found.get(name) != kind:
            raise DataError(path, f"element {element.name!r} needs a property {name!r} of type {kind}")


def _decoded(runs: np.ndarray, packed: np.ndarray, rest: np.ndarray | None) -> GaussianCloud:
    run = np.arange(len(packed)) // _RUN
    bounds = np.stack([runs[name].astype(np.float32) for name in _BOUNDS], 1)[run]
    colors = _fractions(packed["packed_color"], (8, 8, 8, 8))
    rotation = packed["packed_rotation"]
    others = (_fractions(rotation & 0x3FFFFFFF, (10, 10, 10)) - 0.5) * np.float32(2**0.5)
    if rest is None:
        harmonics = np.zeros((len(packed), 0, 3), np.float32)
    else:
        # 0 and 255 are the ends, what lies between them the middle of its step.
        ends = np.where(rest == 0, 0, np.where(rest == 255, 1, (rest + np.float32(0.5)) / 256))
        harmonics = (2 * _WIDEST * (ends - 0.5)).astype(np.float32).transpose(0, 2, 1)
    with np.errstate(invalid="ignore", over="ignore"):  # ranges that are not finite are for `repair` to tell
        means = _between(bounds[:, :6], _fractions(packed["packed_position"], (11, 10, 11)))
        scales = _between(bounds[:, 6:], _fractions(packed["packed_scale"], (11, 10, 11)))
        if set(_COLOR_BOUNDS) <= set(runs.dtype.names or ()):
            ends = np.stack([runs[name].astype(np.float32) for name in _COLOR_BOUNDS], 1)[run]
            colors[:, :3] = _between(ends, colors[:, :3])
    return GaussianCloud(
        means=torch.from_numpy(means),
        scales=torch.from_numpy(scales),
        quats=torch.from_numpy(from_smallest_three((rotation >> 30).astype(np.int64), others)),
        opacities=torch.from_numpy(logits(colors[:, 3])),
        sh0=torch.from_numpy(sh0_of(colors[:, :3])),
        shN=torch.from_numpy(harmonics),
    )


def write_compressed_ply(path: str | Path, splats: Splats) -> None:
    """Write block by block, atomically. The closer together the Gaussians of a run, the less is lost."""
    width = 3 * (splats.sh_degree + 1) ** 2 - 3
    chunks = -(-splats.count // _RUN)
    lines = [f"element chunk {chunks}", *(f"property float {name}" for name in _BOUNDS + _COLOR_BOUNDS)]
    lines += [f"element vertex {splats.count}", *(f"property uint {name}" for name in _PACKED)]
    if width:
        lines += [f"element sh {splats.count}", *(f"property uchar f_rest_{n}" for n in range(width))]
    header = "\n".join(["ply", "format binary_little_endian 1.0", *lines, "end_header\n"]).encode("ascii")
    run_at, splat_at = len(header), len(header) + 72 * chunks
    rest_at, done = splat_at + 16 * splats.count, 0
    with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as file:
        file.write(header)
        for block in regrouped(splats.blocks(), _AT_ONCE):
            bounds, packed = _encoded(block)
            for at, values in ((run_at + 72 * (done // _RUN), bounds), (splat_at + 16 * done, packed)):
                file.seek(at)
                write_all(file, values)
            if width:
                file.seek(rest_at + width * done)
                steps = 256 * (block.shN.transpose(1, 2).numpy() / (2 * _WIDEST) + 0.5)
                write_all(file, np.clip(np.floor(steps), 0, 255).astype(np.uint8))
            done += len(block)
        assert done == splats.count, "the blocks are not what they were said to be"


def _encoded(block: GaussianCloud) -> tuple[np.ndarray, np.ndarray]:
    """(runs, 18) float32 bounds and (N, 4) uint32."""
    scales = block.scales.clamp(-_MOST_LOG_SCALE, _MOST_LOG_SCALE).numpy()
    begins = np.arange(0, len(block), _RUN)
    run = np.arange(len(block)) // _RUN
    ends, fractions = [], []
    for values in (block.means.numpy(), scales, colors_of(block.sh0).astype(np.float32)):
        low, high = (f.reduceat(values, begins, axis=0) for f in (np.minimum, np.maximum))
        ends += [low, high]
        extent = np.where(high > low, high.astype(np.float64) - low, 1)
        fractions.append((values - low[run].astype(np.float64)) / extent[run])
    positions, sizes, colors = fractions
    largest, others = smallest_three(block.quats)
    rotation = _packed(others / np.float32(2**0.5) + 0.5, (10, 10, 10)) | (largest.astype(np.uint32) << 30)
    color = _packed(colors, (8, 8, 8)) << 8 | opacity_bytes(block.opacities)
    fields = [_packed(positions, (11, 10, 11)), rotation, _packed(sizes, (11, 10, 11)), color]
    return np.concatenate(ends, 1).astype("<f4"), np.stack(fields, 1).astype("<u4")


def _between(ends: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """(N, 6) three low and three high ends, (N, 3) from 0 to 1."""
    return ends[:, :3] * (1 - fraction) + ends[:, 3:] * fraction


def _fractions(packed: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """uint32 (N,) -> float32 (N, len(bits)) from 0 to 1, the first from the highest bits."""
    out, shift = np.empty((len(packed), len(bits)), np.float32), sum(bits)
    for n, width in enumerate(bits):
        shift -= width
        most = (1 << width) - 1
        out[:, n] = ((packed >> shift) & most) / np.float32(most)
    return out


def _packed(fractions: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """The inverse, to the nearest."""
    out = np.zeros(len(fractions), np.uint32)
    for n, width in enumerate(bits):
        most = (1 << width) - 1
        out = out << width | np.clip(np.rint(fractions[:, n] * most), 0, most).astype(np.uint32)
    return out
