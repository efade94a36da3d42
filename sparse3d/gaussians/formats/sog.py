"""PlayCanvas' SOG, version 2: the numbers of Gaussians as the pixels of lossless pictures.

Source: "The SOG Format", PlayCanvas' user manual. `meta.json` names the pictures, which lie beside it or with
it in one .zip (.sog). Gaussian i is pixel i, row by row, in each of

    means_l, means_u   low and high bytes of 16 bits from mins to maxs, of sign(x) log(1 + |x|)
    quats              smallest three of w x y z: 8 bits each, and 252 + the place of the largest as alpha
    scales             rows of a codebook of 256 logarithms
    sh0                rows of a codebook of 256 coefficients; alpha is the opacity
    shN_labels         16 bits, low byte first: the entry of a palette of harmonics of degree 1 to 3
    shN_centroids      64 entries of the palette a row, a pixel a coefficient: rows of a third codebook

The manual calls the axes right, up, back; but PlayCanvas' own writer and viewer take the numbers of a .ply as
they are, and so do all files: the axes are a .ply's.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.codebooks import (
    Numbers,
    nearest_number,
    number_codebook,
    row_codebook,
)
from sparse3d.gaussians.formats.frames import WORLD
from sparse3d.gaussians.formats.opening import check_count, check_memory
from sparse3d.gaussians.formats.quantizing import (
    from_smallest_three,
    logits,
    opacity_bytes,
    smallest_three,
    to_bytes,
)
from sparse3d.gaussians.formats.source import Splats
from sparse3d.io.files import atomic_path, write_bytes
from sparse3d.io.reading import read_bytes

SOG_AXES = WORLD
META = "meta.json"
_MOST_SIDE = 16383  # of a WebP picture
_ENTRIES_A_ROW = 64
_FEWEST_ENTRIES, _MOST_ENTRIES = 1 << 10, 1 << 16
_MOST_META = 1 << 24  # bytes
_FIRST_MODE = 252


def open_sog(path: str | Path) -> Splats:
    """The Gaussians of a .sog, or of the folder in which a meta.json lies. The pictures are unpacked into
    memory, at 4 bytes a Gaussian each. Raises DataError."""
    path = Path(path)
    path = path / META if path.is_dir() else path
    read, size = _folder(path) if path.name.lower().endswith(".json") else _archive(path)
    meta = _parsed(read(META, _MOST_META), path)
    count = _whole(meta, "count", path)
    check_count(path, count)

    def picture(*keys: str | int) -> np.ndarray:
        name = _get(meta, keys, str, path)
        return _pixels(read(name, 4 * size + (1 << 20)), f"{path}: {name}")

    def pixels(*keys: str | int) -> np.ndarray:
        found = picture(*keys).reshape(-1, 4)
        if len(found) < count:
            raise DataError(path, f"{'.'.join(map(str, keys))} has {len(found)} pixels for {count} Gaussians")
        return found[:count]

    low, high = (_numbers(meta, ("means", key), path, 3) for key in ("mins", "maxs"))
    means_l, means_u = pixels("means", "files", 0), pixels("means", "files", 1)
    quats, scales, sh0 = pixels("quats", "files", 0), pixels("scales", "files", 0), pixels("sh0", "files", 0)
    scale_book, color_book = (_numbers(meta, (key, "codebook"), path) for key in ("scales", "sh0"))
    _check_rows(scales[:, :3], scale_book, "scales", path)
    _check_rows(sh0[:, :3], color_book, "sh0", path)
    if quats[:, 3].min() < _FIRST_MODE:
        row = int((quats[:, 3] < _FIRST_MODE).argmax())
        raise DataError(
            path, f"the quaternion of Gaussian {row} has alpha {quats[row, 3]}, expected 252 to 255"
        )
    degree, palette, labels = 0, np.zeros((1, 0, 3), np.float32), np.zeros(count, np.int64)
    if meta.get("shN") is not None:
        degree = _whole(meta["shN"], "bands", path)
        if degree not in (1, 2, 3):
            raise DataError(path, f"shN has {degree} bands, expected 1 to 3")
        palette, labels = _harmonics(meta, degree, picture, path)
        if len(labels) < count:
            raise DataError(path, f"shN has {len(labels)} labels for {count} Gaussians")
        labels = labels[:count]
        if labels.max() >= len(palette):
            raise DataError(path, f"label {labels.max()} of a palette of {len(palette)} entries")

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        for begin in range(0, count, rows):
            part = slice(begin, begin + rows)
            steps = means_l[part, :3].astype(np.float64) + 256.0 * means_u[part, :3]
            with np.errstate(over="ignore"):
                folded = low + steps / 65535 * (high - low)
                means = (np.sign(folded) * np.expm1(np.abs(folded))).astype(np.float32)
            others = (quats[part, :3] / np.float32(255) - np.float32(0.5)) * np.float32(2**0.5)
            yield GaussianCloud(
                means=torch.from_numpy(means),
                scales=torch.from_numpy(scale_book.astype(np.float32)[scales[part, :3]]),
                quats=torch.from_numpy(
                    from_smallest_three(quats[part, 3].astype(np.int64) - _FIRST_MODE, others)
                ),
                opacities=torch.from_numpy(logits(sh0[part, 3] / 255)),
                sh0=torch.from_numpy(color_book.astype(np.float32)[sh0[part, :3]][:, None]),
                shN=torch.from_numpy(palette[labels[part]]),
            )

    antialiased = meta.get("antialias") is True or meta.get("model") == "antialiased"
    return Splats(count, degree, False, SOG_AXES, blocks, antialiased)


def _harmonics(
    meta: Any, degree: int, picture: Callable[..., np.ndarray], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """(K, coefficients, 3) entries and (pixels,) labels."""
    coefficients = (degree + 1) ** 2 - 1
    entries = _whole(meta["shN"], "count", path)
    pictures = [picture("shN", "files", n) for n in (0, 1)]
    # Earlier editions of the manual name the two files in the other order than the writers do.
    if pictures[0].shape[1] != _ENTRIES_A_ROW * coefficients:
        pictures.reverse()
    centroids, labels = pictures
    if centroids.shape[1] != _ENTRIES_A_ROW * coefficients:
        raise DataError(path, f"no picture of shN is {_ENTRIES_A_ROW * coefficients} pixels wide")
    if not 0 < entries <= _ENTRIES_A_ROW * centroids.shape[0]:
        raise DataError(
            path, f"shN has {entries} entries, its picture has {_ENTRIES_A_ROW * centroids.shape[0]}"
        )
    book = _numbers(meta, ("shN", "codebook"), path).astype(np.float32)
    rows = centroids[:, :, :3].reshape(-1, coefficients, 3)[:entries]
    _check_rows(rows, book, "shN", path)
    label = labels.reshape(-1, 4)
    return book[rows], label[:, 0].astype(np.int64) + 256 * label[:, 1].astype(np.int64)


# What reads a member of a dataset by name, refusing more than so many bytes.
_Read = Callable[[str, int], bytes]


def _folder(meta: Path) -> tuple[_Read, int]:
    folder = meta.parent

    def read(name: str, most: int) -> bytes:
        place = meta if name == META else folder / _plain(name, meta)
        data = read_bytes(place)
        if len(data) > most:
            raise DataError(place, f"{len(data)} bytes, expected at most {most}")
        return data

    if not meta.is_file():
        raise DataError(meta, "no such file")
    return read, sum(p.stat().st_size for p in folder.iterdir() if p.is_file())


def _archive(path: Path) -> tuple[_Read, int]:
    data = read_bytes(path)

    def read(name: str, most: int) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                member = archive.getinfo(_plain(name, path))
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(path, f"{name} is compressed in a way that is not supported")
                if member.file_size > most:
                    raise DataError(
                        path, f"{name} would be {member.file_size} bytes, expected at most {most}"
                    )
                with archive.open(member) as file:
                    return file.read()  # no more than it says; its checksum is looked at
        except DataError:
            raise
        except KeyError as error:
            raise DataError(path, f"has no {name}") from error
        except Exception as error:  # zipfile raises a dozen kinds, struct.error and RuntimeError among them
            raise DataError(path, f"not a whole .zip archive: {type(error).__name__} {error}") from error

    return read, len(data)


def _plain(name: str, path: Path) -> str:
    """A name of a file right there; DataError for a path."""
    if not name or name.startswith(".") or any(c in name for c in "/\\:\0"):
        raise DataError(path, f"{name!r} is no name of a file beside it: refused")
    return name


def _parsed(data: bytes, path: Path) -> Any:
    try:
        meta = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"its {META} is damaged: {error}") from error
    if not isinstance(meta, dict) or meta.get("version") != 2:
        version = meta.get("version") if isinstance(meta, dict) else None
        raise DataError(path, f"SOG version {version}, expected 2")
    return meta


def _get(meta: Any, keys: tuple[str | int, ...], kind: type, path: Path) -> Any:
    found = meta
    for key in keys:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(path, f"its {META} has no {'.'.join(map(str, keys))}") from error
    if not isinstance(found, kind):
        raise DataError(path, f"its {META} has no {kind.__name__} at {'.'.join(map(str, keys))}")
    return found


def _whole(meta: Any, key: str, path: Path) -> int:
    found = _get(meta, (key,), int, path)
    if isinstance(found, bool):
        raise DataError(path, f"its {META} has {found} for {key}, expected a whole number")
    return found


def _numbers(meta: Any, keys: tuple[str, ...], path: Path, count: int | None = None) -> np.ndarray:
    """A list of finite numbers, float64; at most 256 of them, or exactly `count`."""
    found = _get(meta, keys, list, path)
    where = ".".join(keys)
    if not (len(found) == count if count else 1 <= len(found) <= 256):
        raise DataError(path, f"{where} has {len(found)} numbers, expected {count or '1 to 256'}")
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e38 for n in found):
        raise DataError(path, f"{where} holds what is no finite number")
    return np.array(found, dtype=np.float64)


def _check_rows(rows: np.ndarray, book: np.ndarray, name: str, path: Path) -> None:
    if rows.max() >= len(book):
        raise DataError(path, f"{name} has row {rows.max()} of a codebook of {len(book)}")


def _pixels(data: bytes, where: str) -> np.ndarray:
    """(H, W, 4) uint8 of a lossless picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("WEBP", "PNG")) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise DataError(where, f"a picture of mode {image.mode}, expected RGB or RGBA")
            if max(image.size) > _MOST_SIDE:
                raise DataError(where, f"a picture of {image.size[0]} x {image.size[1]} pixels: refused")
            # A picture of one colour has a few bytes, whatever its size. As it is unpacked, and as RGBA.
            check_memory(where, "its pixels", 8 * image.size[0] * image.size[1])
            return np.asarray(image.convert("RGBA"))
    except DataError:
        raise
    except Exception as error:  # what decoders raise is as various as what they are given
        raise DataError(where, f"not a picture, or a damaged one: {error}") from error


def write_sog(path: str | Path, splats: Splats) -> None:
    """Write a .sog, or, for a name that ends in .json, the files beside it; atomically. In memory are the
    pictures, 20 bytes a Gaussian and what packs one of them; harmonics wait in a file without a name beside
    what is written."""
    path = Path(path)
    count = splats.count
    width = 4 * math.ceil(math.sqrt(count) / 4)
    height = 4 * math.ceil(count / width / 4)
    if max(width, height) > _MOST_SIDE:
        raise ValueError(f"{path}: {count} Gaussians; pictures of a .sog hold {_MOST_SIDE**2}")
    path.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}

    def packed(name: str, pixels: np.ndarray) -> str:
        files[name] = _webp(pixels.reshape(height, width, 4))
        return name

    found = _ranges(splats)
    pictures = {name: _blank(height * width) for name in ("means_l", "means_u", "scales", "quats", "sh0")}
    begin = 0
    for block in splats.blocks():
        for name, values in _channels(block, found).items():
            pictures[name][begin : begin + len(block), : values.shape[1]] = values
        begin += len(block)
    assert begin == count, "the blocks are not what they were said to be"
    names = {name: packed(f"{name}.webp", pictures.pop(name)) for name in list(pictures)}
    meta = {
        "version": 2,
        "asset": {"generator": "sparse3d"},
        "count": count,
        **({"antialias": True, "model": "antialiased"} if splats.antialiased else {}),
        "means": {
            "mins": found.low.tolist(),
            "maxs": found.high.tolist(),
            "files": [names["means_l"], names["means_u"]],
        },
        "scales": {"codebook": found.scale_book.tolist(), "files": [names["scales"]]},
        "quats": {"files": [names["quats"]]},
        "sh0": {"codebook": found.color_book.tolist(), "files": [names["sh0"]]},
    }
    if splats.sh_degree:
        size = min(_MOST_ENTRIES, max(_FEWEST_ENTRIES, 1 << count.bit_length() - 1))
        rows = lambda: (block.shN.flatten(1) for block in splats.blocks())  # noqa: E731
        entries, labels = row_codebook(rows, count, size, path.parent)
        book = number_codebook(entries.numpy())
        files["shN_centroids.webp"] = _webp(_palette(nearest_number(book, entries.numpy())))
        picture = _blank(height * width)
        picture[:count, 0], picture[:count, 1] = (labels & 255).numpy(), (labels >> 8).numpy()
        meta["shN"] = {
            "count": len(entries),
            "bands": splats.sh_degree,
            "codebook": book.tolist(),
            "files": ["shN_centroids.webp", packed("shN_labels.webp", picture)],
        }
    files[META] = json.dumps(meta, separators=(",", ":")).encode("ascii")  # last: it makes the others valid
    if path.name.lower().endswith(".json"):
        for name, data in files.items():
            write_bytes(path if name == META else path.parent / name, data)
        return
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in files.items():
            archive.writestr(
                zipfile.ZipInfo(name), data
            )  # of one date, so that equal clouds make equal files


class _Ranges(NamedTuple):
    """Of all Gaussians: ends of the folded places, and the codebooks of scales and colours."""

    low: np.ndarray
    high: np.ndarray
    scale_book: np.ndarray
    color_book: np.ndarray


def _ranges(splats: Splats) -> _Ranges:
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    scales, colors = Numbers(splats.count, 3), Numbers(splats.count, 3)
    for block in splats.blocks():
        folded = _folded(block)
        low, high = np.minimum(low, folded.min(0)), np.maximum(high, folded.max(0))
        scales.add(block.scales.numpy())
        colors.add(block.sh0[:, 0].numpy())
    return _Ranges(low, high, scales.codebook(), colors.codebook())


def _folded(block: GaussianCloud) -> np.ndarray:
    means = block.means.numpy().astype(np.float64)
    return np.sign(means) * np.log1p(np.abs(means))


def _channels(block: GaussianCloud, ranges: _Ranges) -> dict[str, np.ndarray]:
    """What the pixels of a block hold, (N, 3) or (N, 4) uint8, by the names of the pictures."""
    extent = np.where(ranges.high > ranges.low, ranges.high - ranges.low, 1)
    steps = np.rint((_folded(block) - ranges.low) / extent * 65535).astype(np.uint16)
    largest, others = smallest_three(block.quats)
    places = (largest + _FIRST_MODE).astype(np.uint8)
    colors = nearest_number(ranges.color_book, block.sh0[:, 0].numpy())
    return {
        "means_l": (steps & 255).astype(np.uint8),
        "means_u": (steps >> 8).astype(np.uint8),
        "scales": nearest_number(ranges.scale_book, block.scales.numpy()),
        "quats": np.column_stack([to_bytes(255 * (others / 2**0.5 + 0.5)), places]),
        "sh0": np.column_stack([colors, opacity_bytes(block.opacities)]),
    }


def _blank(pixels: int) -> np.ndarray:
    """(pixels, 4): black, and opaque."""
    out = np.zeros((pixels, 4), np.uint8)
    out[:, 3] = 255
    return out


def _palette(rows: np.ndarray) -> np.ndarray:
    """(K, coefficients * 3) uint8 -> a picture of 64 entries a row."""
    coefficients = rows.shape[1] // 3
    height = -(-len(rows) // _ENTRIES_A_ROW)
    pixels = np.zeros((height * _ENTRIES_A_ROW, coefficients, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[: len(rows), :, :3] = rows.reshape(len(rows), coefficients, 3)
    return pixels.reshape(height, _ENTRIES_A_ROW * coefficients, 4)


def _webp(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    # Without `exact` the colours of pixels with an alpha of 0 are given up.
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, exact=True)
    return out.getvalue()
