"""Niantic's .spz, versions 2 to 4: one array after the other, in few bits, compressed.

Source: the SPZ library's README and its file header structures (github.com/nianticlabs/spz).

Versions 2 and 3 are one gzip stream, a header of 16 bytes, "NGSP", uint32 version, uint32 count, uint8 SH
degree, fractional bits, flags, 0, and the arrays. Version 4 is a header of 32 bytes, the same with the
number of arrays in the last byte and then uint32 the offset of a table of (compressed size, size), uint64;
behind the table the arrays, each compressed by Zstandard; arrays of no bytes are left out. Between header
and table stand extensions, (uint32 type, uint32 size, bytes).

The arrays: positions, 3 x 24 bits with so many bits after the point; opacities, uint8; colours, 3 x uint8,
0.15 sh0 + 0.5; scales, 3 x uint8, 16 (log s + 10); rotations, in version 2 x y z of a quaternion with w >=
0 as 127.5 q + 127.5, later smallest three of x y z w in 32 bits, 2 for the place of the largest, then a
sign and 9 bits of magnitude each, the last entry lowest; harmonics, uint8, 128 c + 128, colours innermost.

Axes are RUB, unless Adobe's extension of them says others. Some writers (PlayCanvas' splat-transform from its
version 3 on) store the numbers of a .ply and say nothing of it: those are to be read as RDF.
"""

import contextlib
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import MAX_SH_DEGREE, GaussianCloud
from sparse3d.gaussians.formats.opening import check_count, check_unpacks, write_all
from sparse3d.gaussians.formats.quantizing import (
    from_smallest_three,
    logits,
    opacity_bytes,
    smallest_three,
    to_bytes,
)
from sparse3d.gaussians.formats.source import Splats
from sparse3d.gaussians.repair import normalized
from sparse3d.io.files import atomic_path
from sparse3d.io.reading import read_bytes

SPZ_AXES = "RUB"
VERSIONS = (2, 3, 4)
_MAGIC = b"NGSP"
_GZIP = b"\x1f\x8b"
_ANTIALIASED, _EXTENDED = 1, 2
_COLOR = 0.15
_FRACTIONAL_BITS = 12  # a quarter of a millimetre
_AXES_EXTENSION = 0xADBE0003
# Values 1 to 8 of the extension: one bit an axis, from the first one up; above 8, y and z are exchanged.
_NAMED_AXES = {1 + n: "LR"[n & 1] + "DU"[n >> 1 & 1] + "BF"[n >> 2] for n in range(8)}
_MOST_EXTENSIONS = 1 << 16  # bytes behind the arrays of versions 2 and 3
_WINDOW = 1 << 27  # what Zstandard itself allows without being asked
# Bytes that come of one: deflate's longest match is 258 bytes in 2 bits; a block of Zstandard, of 128 KiB at
# most, has 4 bytes where it is one byte again and again, 3 of them its header.
_DEFLATE_MOST, _ZSTANDARD_MOST = 1032, 1 << 15
_AT_ONCE = 1 << 20  # bytes that are packed at a time


class _Header(NamedTuple):
    version: int
    splats: int
    degree: int
    fractional_bits: int
    flags: int
    streams: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of positions, opacities, colours, scales, rotations and harmonics."""
        rotation = 3 if self.version == 2 else 4
        return tuple(self.splats * n for n in (9, 1, 3, 3, rotation, 3 * (self.degree + 1) ** 2 - 3))

    def packed(self) -> bytes:
        return struct.pack("<4sII4B", _MAGIC, *self)


def open_spz(path: str | Path) -> Splats:
    """The Gaussians of a file, which is unpacked into memory at 20 to 90 bytes each. Raises DataError."""
    data = read_bytes(path)
    if data[:2] == _GZIP:
        header, arrays, extensions = _from_gzip(data, path)
    elif data[:4] == _MAGIC:
        header, arrays, extensions = _from_zstandard(data, path)
    else:
        raise DataError(path, f"begins with {data[:4]!r}: neither a gzip stream nor 'NGSP'")
    axes = _axes(extensions, path)
    positions, opacities, colors, scales, rotations, harmonics = (
        np.frombuffer(array, np.uint8).reshape(header.splats, -1) for array in arrays
    )

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        for begin in range(0, header.splats, rows):
            part = slice(begin, begin + rows)
            rest = (harmonics[part].astype(np.float32) - 128) / 128
            yield GaussianCloud(
                means=torch.from_numpy(_positions(positions[part], header.fractional_bits)),
                scales=torch.from_numpy(scales[part].astype(np.float32) / 16 - 10),
                quats=torch.from_numpy(_quats(rotations[part])),
                opacities=torch.from_numpy(logits(opacities[part, 0] / 255)),
                sh0=torch.from_numpy(((colors[part] / 255 - 0.5) / _COLOR).astype(np.float32)[:, None]),
                shN=torch.from_numpy(rest.reshape(len(rest), -1, 3)),
            )

    antialiased = bool(header.flags & _ANTIALIASED)
    return Splats(header.splats, header.degree, False, axes, blocks, antialiased)


def _header(data: bytes, path: str | Path, size: int, versions: tuple[int, ...], most: int) -> _Header:
    """Of a file of `size` bytes, of one of which at most `most` come when it is unpacked."""
    if len(data) < 16:
        raise DataError(path, f"{len(data)} bytes of header, expected 16: cut off")
    magic, *numbers = struct.unpack_from("<4sII4B", data)
    header = _Header(*numbers)
    if magic != _MAGIC:
        raise DataError(path, f"what is packed begins with {magic!r}, expected 'NGSP'")
    if header.version not in versions:
        raise DataError(path, f"version {header.version}, expected {' or '.join(map(str, versions))}")
    if header.degree > MAX_SH_DEGREE:
        raise DataError(path, f"SH degree {header.degree}, expected 0 to {MAX_SH_DEGREE}")
    if header.fractional_bits > 24:
        raise DataError(path, f"{header.fractional_bits} bits after the point of numbers of 24 bits")
    check_count(path, header.splats)
    check_unpacks(path, header.splats, sum(header.sizes), size, most)
    return header


def _from_gzip(data: bytes, path: str | Path) -> tuple[_Header, list[bytes], bytes]:
    """No more is unpacked than the header promises, and no less may be there."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        header = _header(unpacker.decompress(data, 16), path, len(data), (2, 3), _DEFLATE_MOST)
        needed = sum(header.sizes)
        body = unpacker.decompress(unpacker.unconsumed_tail, needed)
        most = _MOST_EXTENSIONS if header.flags & _EXTENDED else 0
        extensions = unpacker.decompress(unpacker.unconsumed_tail, most + 1)
    except zlib.error as error:
        raise DataError(path, f"its gzip stream is damaged: {error}") from error
    if len(body) < needed:
        raise DataError(path, f"{len(body)} bytes of Gaussians, {header.splats} need {needed}: cut off")
    if len(extensions) > most:
        raise DataError(path, f"goes on behind the {needed} bytes that {header.splats} Gaussians need")
    if not unpacker.eof:
        raise DataError(path, "its gzip stream is cut off")
    arrays, at = [], 0
    for size in header.sizes:
        arrays.append(body[at : at + size])
        at += size
    return header, arrays, extensions


def _from_zstandard(data: bytes, path: str | Path) -> tuple[_Header, list[bytes], bytes]:
    import zstandard

    header = _header(data, path, len(data), (4,), _ZSTANDARD_MOST)
    if len(data) < 32:
        raise DataError(path, f"{len(data)} bytes, the header has 32: cut off")
    (table,) = struct.unpack_from("<I", data, 16)
    present = [size for size in header.sizes if size]
    if header.streams != len(present):
        raise DataError(path, f"{header.streams} arrays, SH degree {header.degree} has {len(present)}")
    offset = table + 16 * header.streams
    if table < 32 or offset > len(data):
        raise DataError(
            path, f"its table of {header.streams} arrays stands at offset {table}, of {len(data)}"
        )
    found = []
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    for number, expected in enumerate(present):
        packed, size = struct.unpack_from("<QQ", data, table + 16 * number)
        where = f"array {number} at offset {offset}"
        if size != expected:
            raise DataError(path, f"{where} has {size} bytes, {header.splats} Gaussians need {expected}")
        if offset + packed > len(data):
            raise DataError(
                path, f"{where} has {packed} packed bytes, {len(data) - offset} are there: cut off"
            )
        try:
            with unpacker.stream_reader(memoryview(data)[offset : offset + packed]) as reader:
                array = reader.read(expected)
                more = reader.read(1)
        except zstandard.ZstdError as error:
            raise DataError(path, f"{where} is damaged: {error}") from error
        if len(array) != expected or more:
            raise DataError(
                path, f"{where} unpacks to {'more' if more else len(array)} than {expected} bytes"
            )
        found.append(array)
        offset += packed
    arrays = [found.pop(0) if size else b"" for size in header.sizes]
    return header, arrays, data[32:table] if header.flags & _EXTENDED else b""


def _axes(extensions: bytes, path: str | Path) -> str:
    """Those that an extension names, or the format's. Other extensions are skipped."""
    at = 0
    while at + 8 <= len(extensions):
        kind, size = struct.unpack_from("<II", extensions, at)
        if at + 8 + size > len(extensions):
            raise DataError(path, f"an extension of {size} bytes goes on beyond the {len(extensions)} of all")
        if kind == _AXES_EXTENSION and size == 4:
            (value,) = struct.unpack_from("<I", extensions, at + 8)
            if value and value not in _NAMED_AXES:
                raise DataError(path, f"its axes are number {value}, with y and z exchanged: not supported")
            return _NAMED_AXES.get(value, SPZ_AXES)
        at += 8 + size
    return SPZ_AXES


def _positions(bytes_of: np.ndarray, fractional_bits: int) -> np.ndarray:
    low, middle, high = bytes_of.reshape(len(bytes_of), 3, 3).astype(np.int32).transpose(2, 0, 1)
    fixed = low | middle << 8 | (high ^ 0x80) - 0x80 << 16  # the highest byte with its sign
    return fixed.astype(np.float32) / np.float32(1 << fractional_bits)


def _quats(rotations: np.ndarray) -> np.ndarray:
    if rotations.shape[1] == 3:
        xyz = rotations.astype(np.float32) / 127.5 - 1
        square = (xyz * xyz).sum(1, keepdims=True)
        w = np.sqrt(np.maximum(1 - square, 0))
        return np.concatenate([w, xyz], 1) / np.sqrt(np.maximum(square, 1))
    packed = np.ascontiguousarray(rotations).view("<u4")[:, 0]
    others = np.empty((len(packed), 3), np.float32)
    for n in range(3):
        field = packed >> (10 * (2 - n))
        magnitude = (field & 0x1FF) * np.float32(0.5**0.5 / 511)
        others[:, n] = np.where(field & 0x200, -magnitude, magnitude)
    return from_smallest_three((packed >> 30).astype(np.int64), others, "xyzw")


def write_spz(
    path: str | Path, splats: Splats, *, version: int = 4, sh_bits: tuple[int, int] = (5, 4), level: int = 12
) -> None:
    """Write atomically, block by block: the arrays wait in files without names beside what is written.
    `sh_bits`: bits that are kept of harmonics of degree 1, and of higher ones; fewer pack better. `level` is
    Zstandard's. ValueError for positions beyond what 24 bits hold."""
    if version not in VERSIONS:
        raise ValueError(f"version is {version}, .spz is written as {', '.join(map(str, VERSIONS))}")
    if not all(1 <= bits <= 8 for bits in sh_bits):
        raise ValueError(f"sh_bits is {sh_bits}, expected two numbers from 1 to 8")
    bits, degree = _bits_for(splats, path), splats.sh_degree
    header = _Header(version, splats.count, degree, bits, _ANTIALIASED if splats.antialiased else 0, 0)
    sizes = [size for size in header.sizes if size]
    header = header._replace(streams=len(sizes) if version == 4 else 0)
    with contextlib.ExitStack() as opened, atomic_path(path) as temporary:
        arrays = [opened.enter_context(tempfile.TemporaryFile(dir=temporary.parent)) for _ in sizes]
        for block in splats.blocks():
            for array, values in zip(arrays, _encoded(block, version, bits, sh_bits), strict=False):
                write_all(array, values)
        assert [array.tell() for array in arrays] == sizes, "the blocks are not what they were said to be"
        for array in arrays:
            array.seek(0)
        with open(temporary, "wb") as file:
            (_write_gzip if version < 4 else _write_zstandard)(file, header, arrays, level)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """What is left in it."""
    while piece := file.read(_AT_ONCE):
        yield piece


def _write_gzip(file: BinaryIO, header: _Header, arrays: Sequence[BinaryIO], level: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    file.write(packer.compress(header.packed()))
    for array in arrays:
        for piece in _pieces(array):
            file.write(packer.compress(piece))
    file.write(packer.flush())


def _write_zstandard(file: BinaryIO, header: _Header, arrays: Sequence[BinaryIO], level: int) -> None:
    import zstandard

    file.write(header.packed() + struct.pack("<I12x", 32))
    table = file.tell()
    file.write(bytes(16 * len(arrays)))
    entries = []
    for array, size in zip(arrays, (size for size in header.sizes if size), strict=True):
        begin = file.tell()
        packer = zstandard.ZstdCompressor(level).compressobj(size=size)
        for piece in _pieces(array):
            file.write(packer.compress(piece))
        file.write(packer.flush())
        entries.append(struct.pack("<QQ", file.tell() - begin, size))
    file.seek(table)
    file.write(b"".join(entries))


def _bits_for(splats: Splats, path: str | Path) -> int:
    """Bits after the point: 12, or as many as leave room for the farthest position."""
    farthest = max(float(block.means.abs().max()) for block in splats.blocks())
    for bits in range(_FRACTIONAL_BITS, -1, -1):
        if farthest * (1 << bits) < (1 << 23) - 1:
            return bits
    raise ValueError(f"{path}: a position is {farthest:g} m from the origin, .spz reaches 8388606 m")


def _encoded(block: GaussianCloud, version: int, bits: int, sh_bits: tuple[int, int]) -> list[np.ndarray]:
    fixed = np.rint(block.means.numpy().astype(np.float64) * (1 << bits)).astype("<i4")
    positions = fixed.view(np.uint8).reshape(len(block), 3, 4)[:, :, :3]
    colors = 255 * (_COLOR * block.sh0[:, 0].numpy() + 0.5)
    if version == 2:
        unit = normalized(block.quats)[0].numpy()
        rotations = to_bytes(127.5 * unit[:, 1:] * np.where(unit[:, :1] < 0, -1, 1) + 127.5)
    else:
        largest, others = smallest_three(block.quats, "xyzw")
        rotations = largest.astype(np.uint32)
        for n in range(3):
            magnitude = np.rint(np.abs(others[:, n]) * (511 / 0.5**0.5)).astype(np.uint32)
            rotations = (
                rotations << 10 | (others[:, n] < 0).astype(np.uint32) << 9 | np.minimum(magnitude, 511)
            )
        rotations = rotations.astype("<u4")
    return [
        positions,
        opacity_bytes(block.opacities),
        to_bytes(colors),
        to_bytes(16 * (block.scales.numpy() + 10)),
        rotations,
        _harmonics(block.shN.numpy(), sh_bits),
    ]


def _harmonics(coefficients: np.ndarray, sh_bits: tuple[int, int]) -> np.ndarray:
    """uint8 in steps of a power of two, of which 128, no light, is one."""
    step = np.full((coefficients.shape[1], 1), 1 << (8 - sh_bits[1]))
    step[:3] = 1 << (8 - sh_bits[0])
    value = np.rint(128 * np.clip(coefficients, -2, 2)).astype(np.int32) + 128
    return np.clip((value + step // 2) // step * step, 0, 255).astype(np.uint8)
