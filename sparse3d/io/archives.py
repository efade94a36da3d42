"""Downloads unpacked: of each archive what is needed, to where it belongs; an interrupted call goes on."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from sparse3d.errors import DataError

# The path of a member of an archive -> where it belongs below the folder; None for what is not needed.
PlaceOf = Callable[[PurePosixPath], PurePosixPath | None]


class Unpacked(NamedTuple):
    """How many files were written, and how many were there with the right size."""

    written: int
    kept: int


def unpack(archive: Path, out: Path, place_of: PlaceOf) -> Unpacked:
    """Unpack a .zip or .tar (also compressed). Each file appears under its name when it is whole; paths that
    lead out of the folder are left out. DataError for an archive that is damaged or holds nothing needed."""
    written = kept = 0
    try:
        for member, size, content in _members(archive):
            path = PurePosixPath(member)
            place = None if path.is_absolute() or ".." in path.parts else place_of(path)
            if place is None:
                continue
            target = out / place
            if target.is_file() and target.stat().st_size == size:
                kept += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(target.name + ".part")
            with content() as source, open(temporary, "wb") as file:
                shutil.copyfileobj(source, file)  # a zip checks its checksum at the end
            if temporary.stat().st_size != size:
                raise DataError(archive, f"{member} is shorter than it says; download the archive again")
            os.replace(temporary, target)
            written += 1
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(archive, f"not a whole archive ({error}); download it again") from error
    if not written + kept:
        raise DataError(archive, "nothing in it that is needed; is it another archive's name?")
    return Unpacked(written, kept)


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, size and opener of each file."""
    if not archive.is_file():
        raise DataError(archive, "no such file")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, lambda info=info: opened.open(info)
        return
    with tarfile.open(archive) as opened:
        for info in opened:
            if info.isfile():
                yield info.name, info.size, lambda info=info: _file(opened, info)


def _file(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(info)
    assert file is not None  # it is a file
    return file
