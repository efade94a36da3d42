"""Put the downloads of KITTI's object benchmark together.

    python datasets/prepare_kitti.py --out DIR --splits LISTS data_object_velodyne.zip ...

The archives (velodyne, calib, label_2; image_2 is optional) come from cvlibs.net/datasets/kitti. The
benchmark has no split files: LISTS is a folder with the common train.txt and val.txt, as other toolboxes
bring them. Without it every fifth labelled frame becomes `val` and the others `train`, which is no standard
split. Files that are there with the same size are kept, so an interrupted call goes on.
"""

import argparse
import shutil
import sys
from pathlib import Path, PurePosixPath

from sparse3d.errors import DataError
from sparse3d.io.archives import unpack
from sparse3d.io.files import write_text

PARTS = ("velodyne", "calib", "label_2", "image_2")


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """training/... and testing/... of what is read, whatever folder the archive begins with."""
    for start, part in enumerate(path.parts):
        if part in ("training", "testing"):
            inside = path.parts[start:]
            return PurePosixPath(*inside) if len(inside) == 3 and inside[1] in PARTS else None
    return None


def write_splits(out: Path, source: Path | None) -> str:
    """ImageSets/*.txt, copied from `source` or made up where there are none; says what was done."""
    folder = out / "ImageSets"
    if source is not None:
        files = sorted(source.glob("*.txt"))
        if not files:
            raise DataError(source, "no split files (train.txt, val.txt)")
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
        return f"splits {', '.join(path.stem for path in files)}"
    if (folder / "train.txt").is_file():
        return "splits were there"
    labelled = sorted(path.stem for path in (out / "training/label_2").glob("*.txt"))
    validation = labelled[::5]
    training = sorted(set(labelled) - set(validation))
    tests = sorted(path.stem for path in (out / "testing/velodyne").glob("*.bin"))
    for name, ids in (("train", training), ("val", validation), ("test", tests)):
        if ids:
            write_text(folder / f"{name}.txt", "".join(f"{frame_id}\n" for frame_id in ids))
    return f"no --splits: every fifth frame is in val ({len(validation)}), {len(training)} in train"


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the downloads of KITTI's object benchmark together.")
    parser.add_argument("archives", nargs="*", type=Path, metavar="ZIP")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--splits", type=Path, metavar="DIR", help="folder with train.txt and val.txt")
    arguments = parser.parse_args()
    try:
        for archive in arguments.archives:
            written, kept = unpack(archive, arguments.out, place_of)
            print(f"{archive}: {written} files written, {kept} were there")
        print(write_splits(arguments.out, arguments.splits))
    except DataError as error:
        sys.exit(str(error))
    print(f"check it with: sparse3d data check kitti --root {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
