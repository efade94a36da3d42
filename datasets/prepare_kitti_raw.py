"""Put the downloads of KITTI's raw recordings together.

    python datasets/prepare_kitti_raw.py --out DIR 2011_09_26_drive_0001_sync.zip 2011_09_26_calib.zip ...

Of the archives (synced and rectified data, calibration, tracklets; from cvlibs.net/datasets/kitti) scans,
motion, calibration and tracklets are unpacked and the pictures left out. Files that are there with the same
size are kept, so an interrupted call goes on.
"""

import argparse
import sys
from pathlib import Path, PurePosixPath

from sparse3d.errors import DataError
from sparse3d.io.archives import unpack


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """day/drive/... of what is read, whatever folder the archive begins with."""
    for start, part in enumerate(path.parts):
        if len(part) == 10 and part[4] == part[7] == "_":
            inside = path.parts[start:]
            calibration = len(inside) == 2 and inside[1].startswith("calib_")
            of_drive = len(inside) >= 3 and inside[1].endswith("_sync")
            wanted = of_drive and inside[2] in ("velodyne_points", "oxts", "tracklet_labels.xml")
            return PurePosixPath(*inside) if calibration or wanted else None
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the downloads of KITTI's raw recordings together.")
    parser.add_argument("archives", nargs="+", type=Path, metavar="ZIP")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    for archive in arguments.archives:
        try:
            written, kept = unpack(archive, arguments.out, place_of)
        except DataError as error:
            sys.exit(str(error))
        print(f"{archive}: {written} files written, {kept} were there")
    print(f"check it with: sparse3d data check kitti_raw --root {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
