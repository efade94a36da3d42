"""Put the downloads of SemanticKITTI together.

    python datasets/prepare_semantickitti.py --out DIR ZIP [ZIP ...]

The scans come from KITTI's odometry benchmark (data_odometry_velodyne.zip, and data_odometry_calib.zip), the
labels from semantic-kitti.org (data_odometry_labels.zip). Each archive is unpacked into DIR/sequences,
whatever folder it begins with; files that are there with the same size are kept, so an interrupted call goes
on. `--from DIR2` links an odometry folder that is unpacked already in place of its archives.
"""

import argparse
import os
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

# What of the archives is read: sequences/xx/<one of these>.
PARTS = ("velodyne", "labels", "poses.txt", "calib.txt", "times.txt")


def place_of(name: str) -> PurePosixPath | None:
    """Where a member of an archive belongs below DIR, None for what is not needed (and for paths that lead
    out of the folder)."""
    parts = PurePosixPath(name).parts
    if "sequences" not in parts or ".." in parts or name.endswith("/"):
        return None
    inside = parts[parts.index("sequences") :]
    wanted = len(inside) >= 3 and inside[1].isdigit() and inside[2] in PARTS
    return PurePosixPath(*inside) if wanted else None


def unpack(archive: Path, out: Path) -> tuple[int, int]:
    """Unpack what is needed; returns how many files were written and how many were there."""
    written = kept = 0
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            place = place_of(member.filename)
            if place is None:
                continue
            target = out / place
            if target.is_file() and target.stat().st_size == member.file_size:
                kept += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(target.name + ".part")
            with opened.open(member) as source, open(temporary, "wb") as file:
                shutil.copyfileobj(source, file)  # checks the archive's checksum at its end
            os.replace(temporary, target)
            written += 1
    return written, kept


def link(odometry: Path, out: Path) -> int:
    """Link the parts of every sequence of an unpacked folder; returns how many links were made."""
    folder = odometry / "sequences" if (odometry / "sequences").is_dir() else odometry
    made = 0
    for sequence in sorted(path for path in folder.iterdir() if path.name.isdigit()):
        for name in PARTS:
            source, target = sequence / name, out / "sequences" / sequence.name / name
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve())
                made += 1
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the downloads of SemanticKITTI together.")
    parser.add_argument("archives", nargs="*", type=Path, metavar="ZIP")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--from", dest="odometry", type=Path, metavar="DIR", help="unpacked odometry folder")
    arguments = parser.parse_args()
    if not arguments.archives and arguments.odometry is None:
        parser.error("name the archives, or an unpacked folder with --from")
    for path in (*arguments.archives, *filter(None, [arguments.odometry])):
        if not path.exists():
            sys.exit(f"{path}: no such file or folder")
    if arguments.odometry is not None:
        print(f"{arguments.odometry}: {link(arguments.odometry, arguments.out)} links")
    for archive in arguments.archives:
        try:
            written, kept = unpack(archive, arguments.out)
        except zipfile.BadZipFile as error:
            sys.exit(f"{archive}: not a whole zip archive ({error}); download it again")
        if not written + kept:
            sys.exit(f"{archive}: nothing of SemanticKITTI in it (no sequences/xx/velodyne, labels, ...)")
        print(f"{archive}: {written} files written, {kept} were there")
    print(f"check it with: sparse3d data check semantickitti --root {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
