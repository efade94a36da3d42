"""All pixels of a set of photos in one file on disk, from which random ones are read without decoding images.

The file is a plain .npy of one record a pixel (never unpickled), written under a temporary name and renamed
when whole. Its name depends on everything that it was made from: photos, masks, depth maps (by size and
time), scale and lenses. It is only ever a copy and can be deleted. While it is read, the operating system
decides what of it stays in memory.
"""

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.data.array_cache import stamps_key
from sparse3d.data.kitti_index import cache_folder
from sparse3d.data.photos import PosedPhotos
from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d.geometry.rays import pixel_centres
from sparse3d.io.files import atomic_path

_log = logging.getLogger(__name__)

# Part of the key; raise it when the meaning of a record changes.
_VERSION = 1


class PixelCache(NamedTuple):
    """`records` (P,), memory-mapped: `rgb` (3,) uint8; `alpha` uint8, `mask` uint8 (0 or 1) and `depth`
    float32 (metres along the optical axis, NaN unknown) where the photos have them; `pixel` uint32 where some
    are left out. Photo n owns the records `starts[n]:starts[n + 1]` (N + 1,)."""

    records: np.ndarray
    starts: np.ndarray

    def photo_of(self, rows: np.ndarray) -> np.ndarray:
        """The photo that owns each record."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def pixel_of(self, rows: np.ndarray, photo: np.ndarray) -> np.ndarray:
        """The place y * width + x of each record (R,) in its photo (R,)."""
        if "pixel" in (self.records.dtype.names or ()):
            return self.records["pixel"][rows].astype(np.int64)
        return rows - self.starts[photo]

    def rows_of(self, photo: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The inverse of the two: records of places y * width + x (R,) in photos (R,), -1 for those that are
        left out."""
        rows = self.starts[photo] + place
        if "pixel" in (self.records.dtype.names or ()):
            for number in np.unique(photo):
                here = photo == number
                begin, end = self.starts[number : number + 2]
                kept = self.records["pixel"][begin:end]
                found = np.searchsorted(kept, place[here])
                there = found < len(kept)
                there[there] = kept[found[there]] == place[here][there]
                rows[here] = np.where(there, begin + found, -1)
        return rows


def open_pixels(photos: PosedPhotos, cache_dir: str | Path = "", masked_only: bool = False) -> PixelCache:
    """The pixels of `photos`, from the cache where it fits, else written there photo by photo.

    `masked_only` leaves out what masks hide. Pixels that no ray reaches through the lens are left out, too.
    `cache_dir` is the photos' folder where that can be written, else the user's cache folder. DataError where
    the cache cannot be written, where a file is broken, and where no pixel is left.
    """
    root = photos.root if photos.root.is_dir() else photos.root.parent
    where = _digest(f"{photos.root.resolve()}\0{photos.split}\0{photos.scale}\0{masked_only}")
    path = cache_folder(root, cache_dir) / f"sparse3d_pixels_{where}_{_key(photos)}.npy"
    kept = _kept(photos, masked_only)
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in kept])])
    if not starts[-1]:
        raise DataError(photos.root, "no pixel is left: masks hide everything, or the lens sees nothing")
    for row in np.flatnonzero(np.diff(starts) == 0):
        _log.warning("%s: its mask hides everything; it trains nothing", photos.names[row])
    records = _open(path, starts[-1])
    if records is None:
        for old in path.parent.glob(f"sparse3d_pixels_{where}_*.npy"):
            old.unlink(missing_ok=True)
        _write(path, photos, kept)
        records = _open(path, starts[-1])
        assert records is not None  # it was just written
    return PixelCache(records, starts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _key(photos: PosedPhotos) -> str:
    files = [p for view in photos.views for p in (view.image, view.mask, view.depth) if p is not None]
    details = [(view.name, view.row, view.depth_unit) for view in photos.views]
    cameras = photos.cameras
    lenses = hashlib.sha256()
    for column in (cameras.size, cameras.focal, cameras.centre, cameras.kind, cameras.distortion):
        lenses.update(np.ascontiguousarray(column).tobytes())
    return _digest(f"{stamps_key(_VERSION, files)}{details}{lenses.hexdigest()}")


def _kept(photos: PosedPhotos, masked_only: bool) -> "list[range | np.ndarray]":
    """The places of each photo's pixels that take part. Masks are read twice while a cache is made (here and
    in `_write`): the number of records must be known before the first one is written."""
    kept, lenses = [], {}
    for row in range(len(photos)):
        reached = _reached(photos.cameras[row], lenses)
        if masked_only and photos.views[row].mask is not None:
            mask = photos.mask(row)
            assert mask is not None
            shown = mask.ravel() if reached is None else mask.ravel() & reached
            kept.append(np.flatnonzero(shown).astype(np.uint32))
        elif reached is not None:
            kept.append(np.flatnonzero(reached).astype(np.uint32))
        else:
            kept.append(range(int(photos.cameras.size[row].prod())))
    return kept


def _reached(camera: Camera, known: dict[tuple[float | Lens, ...], np.ndarray | None]) -> np.ndarray | None:
    """(height * width,) which pixels have a ray, None for all; cameras of one lens share the answer."""
    width, height = camera.width, camera.height
    key = (camera.fx, camera.fy, camera.cx, camera.cy, width, height, camera.lens)
    if camera.lens == Lens():
        return None
    if key not in known:
        centres = pixel_centres(width, height)
        # What a lens reaches has no holes: where the image's border is reached, so is what lies inside.
        border = (np.minimum(centres, [width, height] - centres) < 1).any(1)
        known[key] = None
        if not np.isfinite(camera.unproject(centres[border])).all():
            known[key] = np.isfinite(camera.unproject(centres)[:, 0])
    return known[key]


def _record(photos: PosedPhotos, kept: "list[range | np.ndarray]") -> np.dtype:
    fields: list = [("rgb", "u1", (3,))]
    if not all(isinstance(places, range) for places in kept):
        fields.append(("pixel", "<u4"))
    if any(photos.has_alpha(row) for row in range(len(photos))):
        fields.append(("alpha", "u1"))
    if any(view.mask is not None for view in photos.views):
        fields.append(("mask", "u1"))
    if any(view.depth is not None for view in photos.views):
        fields.append(("depth", "<f4"))
    return np.dtype(fields)


def _write(path: Path, photos: PosedPhotos, kept: "list[range | np.ndarray]") -> None:
    dtype, count = _record(photos, kept), sum(len(rows) for rows in kept)
    _log.info("%s: %.0f MB of pixels of %d photos", path, count * dtype.itemsize / 1e6, len(photos))
    try:
        # Written, not mapped: a full disk is an OSError here, and would end the process in a mapped file.
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_2_0(file, header)
            for row, places in enumerate(kept):
                if len(places):
                    file.write(_records(photos, row, np.asarray(places), dtype).tobytes())
    except OSError as error:
        raise DataError(
            path, f"the pixel cache cannot be written ({error.strerror or error}); name another folder for it"
        ) from error


def _records(photos: PosedPhotos, row: int, places: np.ndarray, dtype: np.dtype) -> np.ndarray:
    pixels = photos.pixels(row)
    out = np.zeros(len(places), dtype)
    flat = pixels.reshape(-1, pixels.shape[2])[places]
    out["rgb"] = flat[:, :3]
    names = dtype.names or ()
    if "pixel" in names:
        out["pixel"] = places
    if "alpha" in names:
        out["alpha"] = flat[:, 3] if pixels.shape[2] == 4 else 255
    if "mask" in names:
        mask = photos.mask(row)
        out["mask"] = 1 if mask is None else mask.ravel()[places]
    if "depth" in names:
        depth = photos.depth(row)
        out["depth"] = np.nan if depth is None else depth.ravel()[places]
    return out


def _open(path: Path, count: int) -> np.ndarray | None:
    """The file where it is whole and has `count` records."""
    try:
        records = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        _log.info("%s: made anew, it was not readable (%s)", path, error)
        return None
    return records if records.shape == (count,) and records.dtype.names else None
