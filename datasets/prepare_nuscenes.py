"""Put the downloads of nuScenes together.

    python datasets/prepare_nuscenes.py --out DIR v1.0-trainval_meta.tgz v1.0-trainval01_blobs.tgz ...

Of the archives (from nuscenes.org: v1.0-mini.tgz, or the metadata and the ten or so parts of trainval) only
the tables and the LiDAR scans are unpacked: about a tenth. Files that are there with the same size are kept,
so an interrupted call goes on. At the end the index is built, which takes some minutes for trainval.
"""

import argparse
import sys
from pathlib import Path, PurePosixPath

from sparse3d.data.nuscenes import NuscenesConfig, NuscenesDataset
from sparse3d.errors import DataError
from sparse3d.io.archives import unpack


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """Tables (v1.0-*/x.json) and LiDAR scans, whatever folder the archive begins with."""
    for start, part in enumerate(path.parts):
        inside = PurePosixPath(*path.parts[start:])
        if part.startswith("v1.0-") and inside.suffix == ".json" and len(inside.parts) == 2:
            return inside
        if part in ("samples", "sweeps"):
            wanted = len(inside.parts) == 3 and inside.parts[1] == "LIDAR_TOP"
            return inside if wanted else None
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the downloads of nuScenes together.")
    parser.add_argument("archives", nargs="*", type=Path, metavar="TGZ")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    try:
        for archive in arguments.archives:
            written, kept = unpack(archive, arguments.out, place_of)
            print(f"{archive}: {written} files written, {kept} were there")
        for folder in sorted(arguments.out.glob("v1.0-*")):
            config = NuscenesConfig(root=str(arguments.out), version=folder.name, skip_missing=True)
            dataset = NuscenesDataset(config, "trainval")
            there = len(dataset) + len(dataset.absent)
            print(f"{folder}: {len(dataset)} of {there} key frames in {len(dataset.sequences)} scenes")
    except DataError as error:
        sys.exit(str(error))
    print(f"check it with: sparse3d data check nuscenes --root {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
