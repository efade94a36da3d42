"""Decode the range images of Waymo's second release to points, once.

    python datasets/prepare_waymo.py --root DIR [--split train] [--workers 8]

A range image is a row of a large parquet file, and to read one frame of it in a random order costs much more
than the frame is. This writes DIR/<split>/points/<segment>/<timestamp>.bin, the points of all five lasers
and both returns (x, y, z, tanh intensity, elongation as float32; 3.5 MB a frame), which the data set then
reads. Files that are there are kept, so an interrupted call goes on. The parquet files of the components
vehicle_pose and lidar_box stay in use; lidar, lidar_pose and lidar_calibration may be removed afterwards.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from sparse3d.data.waymo import WaymoConfig, WaymoDataset, points_file
from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes
from sparse3d.io.waymo import LASERS, SegmentFiles


def decode_segment(root: str, split: str, segment: str) -> int:
    """Write the frames of a segment that are not there; returns how many that were."""
    dataset = WaymoDataset(WaymoConfig(root=root), split)
    table = dataset.table
    folder = (
        dataset.root / table.scan_file[table.frame_scan[dataset.sequences[segment][0]]].decode().split("/")[0]
    )
    files = SegmentFiles(folder, segment)  # one for all frames: they share row groups
    written = 0
    for scan in table.frame_scan[list(dataset.sequences[segment])].tolist():
        time = int(table.scan_time[scan]) // 1000
        path = points_file(folder, segment, time)
        if not path.is_file():
            points = files.points(time, table.world_from_lidar[scan], tuple(LASERS), 2)
            write_bytes(path, points.astype("<f4").tobytes())
            written += 1
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode Waymo's range images to points.")
    parser.add_argument("--root", required=True, metavar="DIR")
    parser.add_argument("--split", default="train", help="train, val, test or a segment (default: train)")
    parser.add_argument("--workers", type=int, default=4, help="processes (default: 4); 0: this one")
    arguments = parser.parse_args()
    try:
        # Opened here first, so that the index is there for all processes.
        segments = list(WaymoDataset(WaymoConfig(root=arguments.root), arguments.split).sequences)
        if arguments.workers < 1:
            for segment in segments:
                written = decode_segment(arguments.root, arguments.split, segment)
                print(f"{segment}: {written} frames written", flush=True)
            return 0
        # Never fork: a child forked after a parallel numba region may abort.
        with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
            jobs = [
                pool.submit(decode_segment, arguments.root, arguments.split, segment) for segment in segments
            ]
            for done, (segment, job) in enumerate(zip(segments, jobs, strict=True), start=1):
                print(f"{segment}: {job.result()} frames written ({done} of {len(segments)})", flush=True)
    except DataError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
