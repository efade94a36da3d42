"""Tables that data sets derive from their files, kept between runs as plain arrays (.npz, never unpickled).

A table is a NamedTuple of arrays. It is stored with a key that says everything it was made from; a file that
is missing, corrupt, of another key or of other fields is made anew, and one that cannot be written costs time
only.
"""

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sparse3d.data.kitti_index import cache_folder
from sparse3d.io.files import atomic_path

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=tuple[Any, ...])


def cached_table(kind: type[T], root: Path, name: str, cache_dir: str, key: str, build: Callable[[], T]) -> T:
    """The table `name` of a data set, from the cache where its key still fits, else from `build()`."""
    digest = hashlib.sha256(f"{root.resolve()}\0{name}".encode()).hexdigest()[:12]
    path = cache_folder(root, cache_dir) / f"sparse3d_index_{digest}.npz"
    fields: tuple[str, ...] = getattr(kind, "_fields")  # noqa: B009 (a NamedTuple's, which `type[T]` hides)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return kind(*(stored[field] for field in fields))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        _log.info("%s: rebuilt, it was not readable (%s)", path, error)
    table = build()
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, key=np.array(key), **dict(zip(fields, table, strict=True)))
    except OSError as error:
        _log.warning("%s: not written (%s); the next start reads all tables again", path, error)
    return table


def stamps_key(version: int, paths: Iterable[Path]) -> str:
    """Digest of the size and time of files and folders; what is derived from them depends on it. `version`
    changes when the meaning of the table does."""
    digest = hashlib.sha256(str(version).encode())
    for path in paths:
        try:
            status = path.stat()
            digest.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        except OSError:
            digest.update(f"\0{path}\0missing".encode())
    return digest.hexdigest()
