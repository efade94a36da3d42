"""What a KITTI-layout folder holds, remembered between runs in one checksummed JSON file.

Opening a split needs the label rows and image size of each frame: thousands of small files. They are kept
with the size and modification time of the files that they came from, and read anew where either differs. The
index is only ever a copy: a corrupt, stale or unwritable one costs time, never correctness.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sparse3d.errors import DataError
from sparse3d.io.files import write_text
from sparse3d.io.reading import read_text

_log = logging.getLogger(__name__)

# Part of every index; raise it when the meaning of an entry changes.
_VERSION = 1

# Size of KITTI's most common image; stands in where a folder has no pictures, as synthetic ones.
DEFAULT_IMAGE_SIZE = (1242, 375)


@dataclass(frozen=True)
class FrameFiles:
    """Where the files of one frame are."""

    frame_id: str
    velodyne: Path
    calib: Path
    label: Path
    image: Path


@dataclass(frozen=True)
class FrameEntry:
    """What the index knows about one frame.

    `stamps` are (bytes, modification time in ns) of velodyne, calib, label and image, (-1, -1) where there is
    none.
    """

    frame_id: str
    stamps: tuple[tuple[int, int], ...]
    image_size: tuple[int, int]
    label_text: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of velodyne, calib, label and image are not there."""
        names = ("velodyne", "calib", "label", "image")
        return tuple(name for name, stamp in zip(names, self.stamps, strict=True) if stamp[0] < 0)


def frame_files(root: Path, split: str, frame_id: str) -> FrameFiles:
    """The paths of a frame; the split "test" lies in testing/, all others in training/."""
    folder = root / ("testing" if split == "test" else "training")
    return FrameFiles(
        frame_id,
        velodyne=folder / "velodyne" / f"{frame_id}.bin",
        calib=folder / "calib" / f"{frame_id}.txt",
        label=folder / "label_2" / f"{frame_id}.txt",
        image=folder / "image_2" / f"{frame_id}.png",
    )


def find_root(root: str | Path) -> Path:
    """The folder itself, or the folder of that name in $SPARSE3D_DATASETS. DataError with the way out if
    neither is.
    """
    path = Path(root).expanduser()
    if path.is_dir():
        return path
    datasets = os.environ.get("SPARSE3D_DATASETS")
    if datasets and not path.is_absolute() and (Path(datasets) / path).is_dir():
        return Path(datasets) / path
    raise DataError(
        path,
        "no such folder, nor in $SPARSE3D_DATASETS; datasets/README.md shows what each data set looks "
        f"like, and `sparse3d data make minidrive --out {path}` makes a small synthetic one",
    )


def read_split(root: Path, split: str) -> list[str]:
    """Frame ids of ImageSets/<split>.txt, in its order; a missing split is a DataError that lists what
    exists.
    """
    path = root / "ImageSets" / f"{split}.txt"
    if not path.is_file():
        found = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise DataError(path, f"no such split; {path.parent} has {', '.join(found) or 'none'}")
    ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    for frame_id in ids:
        if not all(c.isalnum() or c in "_-" for c in frame_id):
            raise DataError(path, f"{frame_id!r} is not a frame id")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(path, f"{twice} stands in it twice")
    return ids


def load_index(root: Path, split: str, ids: Sequence[str], cache_dir: str | Path = "") -> list[FrameEntry]:
    """Entries of `ids` in their order, from the cache where it still fits the files, else from the files."""
    path = index_path(root, split, cache_dir)
    cached = _read_cache(path)
    entries, changed = [], False
    for frame_id in ids:
        files = frame_files(root, split, frame_id)
        stamps = tuple(_stamp(p) for p in (files.velodyne, files.calib, files.label, files.image))
        entry = cached.get(frame_id)
        if entry is None or entry.stamps != stamps:
            entry, changed = _read_entry(files, stamps), True
        entries.append(entry)
    if changed or len(cached) != len(entries):
        _write_cache(path, entries)
    return entries


def cache_folder(root: Path, cache_dir: str | Path = "") -> Path:
    """Where derived files of a data set go: `cache_dir`, else the root where writable, else the user's cache
    folder.
    """
    if cache_dir:
        return Path(cache_dir).expanduser()
    if os.access(root, os.W_OK):
        return root
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse3d"


def index_path(root: Path, split: str, cache_dir: str | Path = "") -> Path:
    """The index file of a split; its name depends on the root, so that data sets can share a cache folder."""
    digest = hashlib.sha256(f"{root.resolve()}\0{split}".encode()).hexdigest()[:12]
    return cache_folder(root, cache_dir) / f"sparse3d_index_{digest}.json"


def fingerprint(entries: Sequence[FrameEntry]) -> str:
    """Digest of the frames and of the size and time of their files: what is derived from them depends on
    it.
    """
    return hashlib.sha256(json.dumps([(e.frame_id, e.stamps) for e in entries]).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return (status.st_size, status.st_mtime_ns)


def _read_entry(files: FrameFiles, stamps: tuple[tuple[int, int], ...]) -> FrameEntry:
    size = DEFAULT_IMAGE_SIZE
    if stamps[3][0] >= 0:
        try:
            # Reads the header only; the pixels are never decoded.
            with Image.open(files.image) as image:
                size = image.size
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(files.image, f"not a picture: {error}") from error
    label_text = read_text(files.label) if stamps[2][0] >= 0 else ""
    return FrameEntry(files.frame_id, stamps, size, label_text)


def _read_cache(path: Path) -> dict[str, FrameEntry]:
    """Entries by frame id; none where the file is missing, corrupt or of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != _VERSION or document["sha256"] != _digest(document["frames"]):
            raise ValueError("checksum or version differs")
        return {
            row["frame_id"]: FrameEntry(
                row["frame_id"],
                tuple((int(size), int(time)) for size, time in row["stamps"]),
                (int(row["image_size"][0]), int(row["image_size"][1])),
                str(row["label_text"]),
            )
            for row in document["frames"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        _log.info("%s: rebuilt, it was not readable (%s)", path, error)
        return {}


def _write_cache(path: Path, entries: Sequence[FrameEntry]) -> None:
    frames = [asdict(entry) for entry in entries]
    try:
        write_text(path, json.dumps({"version": _VERSION, "sha256": _digest(frames), "frames": frames}))
    except OSError as error:
        _log.warning("%s: not written (%s); the next start reads all label files again", path, error)


def _digest(frames: object) -> str:
    return hashlib.sha256(json.dumps(frames, sort_keys=True).encode()).hexdigest()
