"""Time and peak memory of one training step of a detector: forward, losses and backward.

    python tools/bench_detector.py [CONFIG] [--batch 4] [--repeats 5] [--columns 2048] [--full-turn]

The frames are generated (64 beams x `columns`), cut to the camera's view as KITTI's labels ask, or with
`--full-turn` to the bounds alone. Peak memory is that of the whole process, torch and compiled kernels
included.
"""

import argparse
import resource
import statistics
import sys
import time

import numpy as np
import torch

from sparse3d import config
from sparse3d.data.minidrive import LidarConfig, MinidriveConfig, simulate
from sparse3d.data.minidrive.labels import calibration
from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.io.kitti import in_image
from sparse3d.models.detectors import DetectorModel, build_detector
from sparse3d.recipes.detection_config import DetectionConfig


def frames(count: int, columns: int, classes: tuple[str, ...], full_turn: bool) -> list[LidarFrame]:
    """Generated frames with the boxes of the model's classes."""
    made = []
    for index in range(count):
        scene = simulate(0, index, MinidriveConfig(lidar=LidarConfig(columns=columns)))
        keep = np.isin(scene.names, classes)
        labels = np.asarray([classes.index(name) for name in scene.names[keep]], dtype=np.int64)
        points = np.ascontiguousarray(scene.points, dtype=np.float32)
        if not full_turn:
            points = points[in_image(points[:, :3], calibration(), (1242, 375))]
        made.append(LidarFrame(str(index), points, scene.boxes[keep].astype(np.float32), labels))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("config", nargs="?", default="centerpoint_kitti")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--full-turn", action="store_true")
    arguments = parser.parse_args()
    loaded = config.load(DetectionConfig, arguments.config)
    classes = loaded.model.classes
    batch = DetectionBatch.collate(frames(arguments.batch, arguments.columns, classes, arguments.full_turn))
    model = build_detector(loaded.model).train()
    assert isinstance(model, DetectorModel)

    print(
        f"{arguments.config}: batch {batch.batch_size}, {len(batch.points)} points, "
        f"float32, cpu, {torch.get_num_threads()} threads, "
        f"{sum(p.numel() for p in model.parameters())} parameters"
    )
    forward, backward = [], []
    for _ in range(arguments.repeats + 1):
        model.zero_grad(set_to_none=True)
        begin = time.perf_counter()
        total = torch.stack(list(model.loss(batch).values())).sum()
        middle = time.perf_counter()
        total.backward()
        forward.append(middle - begin)
        backward.append(time.perf_counter() - middle)
    for name, (first, *times) in (("forward and losses", forward), ("backward", backward)):
        spread = f"{min(times):.3f} - {max(times):.3f} over {len(times)}"
        print(f"{name}: {statistics.median(times):.3f} s (median; {spread}); first call {first:.3f} s")
    # Kibibytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(f"peak memory of the process: {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
