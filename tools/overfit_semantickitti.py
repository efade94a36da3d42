"""Do labels, voxels, losses and the metric agree on real files? Learn a few SemanticKITTI scans by heart.

    python tools/overfit_semantickitti.py ROOT [--sequence 00] [--steps 700] [--out DIR]

Trains a narrow MinkUNet on 10 cm voxels on the labelled scans of one sequence of ROOT, without augmentation,
and asks for the labels of the same scans. Prints the IoU of each class, beside the highest that any labelling
of voxels of that size can have; exit code 1 when the mean over the classes present is below 95.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sparse3d import config
from sparse3d.data.segmentation import SegmentationDataset
from sparse3d.evaluation.segmentation import Confusion, SegmentationResult
from sparse3d.frames import IGNORE
from sparse3d.models.point_voxels import point_voxels
from sparse3d.recipes import segmentation
from sparse3d.recipes.segmentation_config import SegmentationConfig

WANTED = 95.0


def settings(root: Path, sequence: str, steps: int) -> SegmentationConfig:
    """A narrow network, one scan a step, no augmentation."""
    return config.load(
        SegmentationConfig,
        "minkunet_semantickitti",
        [
            f"data.root={root}",
            f"data.train=['{sequence}']",
            "augment.steps=[]",
            "model.voxel_size=0.1",
            "model.inputs=relative",
            "model.stem_channels=24",
            "model.stem_kernel=3",
            "model.channels=[32,48,64,96,64,48,32,24]",
            "model.layers=[1,1,2,2,1,1,1,1]",
            "loader.batch_size=1",
            "loader.workers=0",
            f"train.steps={steps}",
            "optimizer.lr=6e-3",
            "schedule.warmup=0.2",
            "evaluation.split=train",
            "evaluation.every_epochs=1000000",
        ],
    )


def ceiling(dataset: SegmentationDataset, voxel_size: float) -> SegmentationResult:
    """The result of giving each voxel the label that most of its labelled points have."""
    classes = dataset.config.classes
    confusion = Confusion(len(classes))
    for frame in (dataset[i] for i in range(len(dataset))):
        points = torch.from_numpy(frame.points)
        frames = torch.zeros(len(points), dtype=torch.int64)
        row = point_voxels(points, frames, voxel_size, 1, "mean").point_voxel.numpy()
        votes = np.zeros((row.max() + 1, len(classes)), dtype=np.int64)
        counted = frame.labels != IGNORE
        np.add.at(votes, (row[counted], frame.labels[counted]), 1)
        confusion.add(frame.labels, votes.argmax(axis=1)[row])
    return confusion.result(classes)


def main() -> int:
    parser = argparse.ArgumentParser(description="Learn a few labelled scans by heart.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--sequence", default="00")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("runs/overfit_semantickitti"))
    arguments = parser.parse_args()
    loaded = settings(arguments.root, arguments.sequence, arguments.steps)
    dataset = SegmentationDataset(loaded.data, "train")
    if len(dataset) > 50:
        sys.exit(
            f"{arguments.root}: sequence {arguments.sequence} has {len(dataset)} scans; this is for a few"
        )
    best = ceiling(dataset, 0.1)
    segmentation.train(loaded, arguments.out)
    found = segmentation.evaluate(arguments.out, "train", "last").judgement.semantic
    table = Table(
        "class", "points", "IoU", "highest possible", title=f"{len(dataset)} scans learned by heart"
    )
    for name, points, iou, top in zip(found.class_names, found.points, found.iou, best.iou, strict=True):
        if points:
            table.add_row(name, str(points), f"{100 * iou:.1f}", f"{100 * top:.1f}")
    table.add_section()
    present = found.points > 0
    mean = 100 * float(found.iou[present].mean())
    table.add_row(
        f"mean of {present.sum()}",
        str(found.points.sum()),
        f"{mean:.1f}",
        f"{100 * best.iou[present].mean():.1f}",
    )
    Console().print(table)
    print("learned" if mean >= WANTED else f"NOT learned: mean IoU below {WANTED:g}; more steps?")
    return 0 if mean >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
