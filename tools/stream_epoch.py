"""One epoch over a data set that is larger than the memory a process may have: the memory in use stays flat.

    python tools/stream_epoch.py --frames 2000 --limit 1.5

writes frames of 120,000 points in KITTI's layout (1.9 MB each) into a temporary folder, forbids itself and
its workers more than `--limit` GiB of data each, and reads them once through the training loader with its
augmentation. It prints the resident memory of this process and of the largest worker on the way. With
`--train` each batch is also trained on.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sparse3d.data.augment import AugmentConfig, PointShuffle, RandomFlip, RandomRotation, RandomScaling
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.data.loader import make_loader
from sparse3d.data.minidrive.labels import calibration
from sparse3d.engine import memory
from sparse3d.io.kitti import write_calibration
from sparse3d.io.points import write_points

POINTS = 120_000
LABEL = "Car 0.00 0 -1.57 500.00 170.00 700.00 300.00 1.50 1.60 4.00 {x:.2f} 1.70 {z:.2f} -1.57\n"


def write_frames(root: Path, count: int) -> int:
    """A folder in KITTI's layout; returns its bytes. Clouds differ, calibrations are minidrive's."""
    rng = np.random.default_rng(0)
    for number in range(count):
        cloud = rng.uniform((0, -40, -2, 0), (70, 40, 2, 1), (POINTS, 4)).astype(np.float32)
        write_points(root / f"training/velodyne/{number:06d}.bin", cloud)
        write_calibration(root / f"training/calib/{number:06d}.txt", calibration())
        label = root / f"training/label_2/{number:06d}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(LABEL.format(x=rng.uniform(-5, 5), z=rng.uniform(8, 40)))
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("".join(f"{n:06d}\n" for n in range(count)))
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--limit", type=float, default=1.5, help="GiB of data a process may have")
    parser.add_argument("--rows", type=int, default=10, help="lines to print")
    parser.add_argument("--train", action="store_true", help="also train a small CenterPoint on them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_frames(Path(folder), arguments.frames)
        print(f"{arguments.frames} frames, {size / 2**30:.2f} GiB; a process may have {arguments.limit} GiB")
        forbid(arguments.limit)
        stream(Path(folder), arguments)


def forbid(gib: float) -> None:
    """No more than so much private memory for this process and those that it starts."""
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)


def stream(root: Path, arguments: argparse.Namespace) -> None:
    """Read one epoch, and print the memory in use on the way."""
    steps = AugmentConfig((RandomFlip(), RandomRotation(), RandomScaling(), PointShuffle()))
    data = KittiDataset(KittiDatasetConfig(root=str(root), camera_view=False), "train", steps)
    loader = make_loader(data, arguments.batch_size, workers=arguments.workers, shuffle=True)
    learn = trainer() if arguments.train else None
    begin, frames, rows = time.perf_counter(), 0, []
    print(f"{'frames':>8} {'this process':>14} {'largest worker':>16}   MiB")
    due = np.linspace(arguments.batch_size * 4, len(data), arguments.rows).tolist()
    for batch in loader:
        frames += batch.batch_size
        if learn is not None:
            learn(batch)
        if due and frames >= due[0]:
            due.pop(0)
            workers = [held for pid in memory.workers() if (held := memory.resident(pid))]
            rows.append(((memory.resident() or 0) / 2**20, max(workers, default=0) / 2**20))
            print(f"{frames:>8} {rows[-1][0]:>14.0f} {rows[-1][1]:>16.0f}")
    table = np.array(rows[1:])  # without the first: imports and pools are still growing
    growth = table[-1] - table[0]
    print(
        f"{frames / (time.perf_counter() - begin):.1f} frames/s; growth over the last rows: "
        f"{growth[0]:+.0f} MiB in this process, {growth[1]:+.0f} MiB in the largest worker"
    )


def trainer():
    """A step of a small pillar CenterPoint as a function of the batch."""
    from sparse3d.models.detectors import build_detector
    from sparse3d.recipes import tasks

    config = tasks.load("centerpoint_pillar_minidrive", ["model.bounds=[0, -25.6, -3, 51.2, 25.6, 1]"])
    model = build_detector(config.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def learn(batch) -> None:
        optimizer.zero_grad()
        torch.stack(list(model.loss(batch).values())).sum().backward()
        optimizer.step()

    return learn


if __name__ == "__main__":
    main()
