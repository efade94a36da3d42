"""Do calibration, boxes, targets, decoding and the metric agree on real files? Learn a few KITTI frames by
heart.

    python tools/overfit_kitti.py ROOT [--steps 360] [--out runs/overfit_kitti]

Trains `centerpoint_kitti`, its BEV network narrowed, on the labelled frames of ROOT without augmentation and
asks for each of them, on the same frames, which labelled boxes it finds. Prints a table; exit code 1 when a
box with 10 or more points inside the bounds is missed (IoU 0.7 for cars, 0.5 for people) or a frame has more
than one false positive above the score.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from sparse3d import config
from sparse3d.data.kitti import KittiDataset
from sparse3d.evaluation.matching import match_boxes
from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.recipes import detection
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d_ops.boxes import points_per_box

MIN_OVERLAP = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
MIN_POINTS = 10


class FrameReport(NamedTuple):
    """One frame: its boxes (class, points inside, overlap of the detection that found it) and false
    positives."""

    frame_id: str
    boxes: list[tuple[str, int, float]]
    false_positives: int

    @property
    def missed(self) -> int:
        return sum(overlap == 0.0 for _, _, overlap in self.boxes)


def settings(root: Path, steps: int, out: Path) -> DetectionConfig:
    """`centerpoint_kitti` without augmentation, one frame a step."""
    return config.load(
        DetectionConfig,
        "centerpoint_kitti",
        [
            f"data.root={root}",
            f"data.cache_dir={out / 'cache'}",
            "augment.steps=[]",
            "loader.batch_size=1",
            "loader.workers=0",
            f"train.steps={steps}",
            "schedule.warmup=0.1",
            # Geometry is what is tested here, not capacity: a narrow BEV network learns as much in a fifth of
            # the time.
            "model.bev.layers=[2,2]",
            "model.bev.filters=[64,64]",
            "model.bev.upsample_filters=[64,64]",
            "evaluation.split=train",
            "evaluation.every_epochs=1000000",
        ],
    )


def use_statistics_of(frame: LidarFrame, model: nn.Module) -> None:
    """Let the batch norms use this frame's statistics, as training does with a batch of one: after so few
    steps the running averages are still far from anything."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # the plain average, here of one batch
    model.train()
    with torch.no_grad():
        model(DetectionBatch.collate([frame]))
    model.eval()


def report(run: Path, score: float) -> list[FrameReport]:
    """What the trained network finds on each training frame above `score`."""
    detector = detection.load_detector(run, "last")
    dataset = KittiDataset(detector.config.dataset, "train")
    overlaps = [MIN_OVERLAP[name] for name in dataset.class_names]
    reports = []
    for frame in (dataset[i] for i in range(len(dataset))):
        use_statistics_of(frame, detector.model)
        found = detector.predict([frame])[0].cpu()
        sure = (found.scores >= score).numpy()
        xyz = torch.from_numpy(np.ascontiguousarray(frame.points[:, :3]))
        points = points_per_box(xyz, torch.from_numpy(frame.boxes)).numpy()
        # Boxes with fewer points need not be found, but finding them is no fault.
        asked = points >= MIN_POINTS
        matches = match_boxes(
            frame.boxes[asked],
            frame.labels[asked],
            found.boxes.numpy()[sure],
            found.scores.numpy()[sure],
            found.labels.numpy()[sure],
            overlaps,
            ignored_boxes=frame.boxes[~asked],
        )
        names = [dataset.class_names[label] for label in frame.labels[asked]]
        rows = list(zip(names, points[asked].tolist(), matches.overlap.tolist(), strict=True))
        reports.append(FrameReport(frame.frame_id, rows, int(matches.false_positive.sum())))
    return reports


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--score", type=float, default=0.6)
    parser.add_argument("--out", type=Path, default=Path("runs/overfit_kitti"))
    arguments = parser.parse_args()
    if not (arguments.root / "ImageSets" / "train.txt").is_file():
        sys.exit(
            f"{arguments.root}: not a KITTI folder, it has no ImageSets/train.txt; see datasets/README.md"
        )
    detection.train(settings(arguments.root, arguments.steps, arguments.out), arguments.out)
    reports = report(arguments.out, arguments.score)
    table = Table("frame", "class", "points", "IoU", title=f"boxes with {MIN_POINTS} or more points")
    for frame in reports:
        for name, points, overlap in frame.boxes:
            table.add_row(frame.frame_id, name, str(points), f"{overlap:.2f}" if overlap else "missed")
        table.add_row(frame.frame_id, f"false positives: {frame.false_positives}", "", "", end_section=True)
    Console().print(table)
    good = all(frame.missed == 0 and frame.false_positives <= 1 for frame in reports)
    print("every box found" if good else "NOT learned: more steps, or something disagrees")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
