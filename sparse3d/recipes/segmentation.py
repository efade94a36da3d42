"""Semantic segmentation of LiDAR scans from config to a judged model: train, evaluate, load. `segment_files`
applies it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from sparse3d.data.segmentation import SegmentationDataset
from sparse3d.engine import distributed
from sparse3d.engine.loop import Hook
from sparse3d.io.files import write_text
from sparse3d.models.segmenters import build_segmenter
from sparse3d.recipes.generated import generate_scenes
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.segmentation_config import SegmentationConfig
from sparse3d.recipes.segmentation_judge import (
    AS_IT_IS,
    EIGHT_VIEWS,
    Progress,
    SegmentationJudgement,
    judge_segmenter,
)
from sparse3d.recipes.training import FrameTask, Metrics, TrainOutcome, load_trained, train_on_frames

BEST_METRIC = "mIoU"


def train(
    config: SegmentationConfig,
    out: str | Path,
    resume: bool = False,
    *,
    if_begun: bool = False,
    progress_of_data: Progress | None = None,
    extra_hooks: Sequence[Hook] = (),
) -> TrainOutcome:
    """Train into the run folder `out`, as `train_on_frames` does. Missing data are generated first where the
    config says how (`progress_of_data(done, scenes)` is called on the way)."""

    def prepare() -> None:
        if config.generate is not None:
            generate_scenes(config.data.root, config.generate, True, progress_of_data)

    task = FrameTask(
        prepare=prepare,
        dataset=lambda: SegmentationDataset(config.data, config.loader.split, config.augment),
        model=lambda: build_segmenter(config.model),
        metrics=lambda: _metrics(config),
        best=BEST_METRIC,
    )
    return train_on_frames(config, task, out, resume, if_begun, extra_hooks)


def _metrics(config: SegmentationConfig) -> Metrics:
    """What training watches, on the scans of the validation split."""
    validation = SegmentationDataset(config.data, config.evaluation.split)

    def metrics(model: nn.Module) -> Mapping[str, float] | None:
        judgement = judge_segmenter(model, validation, config.evaluation.batch_size)
        return None if judgement is None else metrics_of(judgement)

    return metrics


def metrics_of(judgement: SegmentationJudgement) -> dict[str, float]:
    """The numbers that training watches, in percent: mIoU, and the IoU of the classes that occur."""
    result = judgement.semantic
    per_class = zip(result.class_names, result.iou.tolist(), strict=True)
    metrics = {f"IoU_{name}": 100 * value for name, value in per_class if not math.isnan(value)}
    return {BEST_METRIC: 100 * result.mean_iou, "accuracy": 100 * result.accuracy, **metrics}


@dataclass(frozen=True)
class SegmentationOutcome:
    """What was found, the folder that it was written to, and the checkpoint that was judged."""

    judgement: SegmentationJudgement
    folder: Path
    checkpoint: Path


def evaluate(
    run: str | Path,
    split: str | None = None,
    checkpoint: str = "best",
    *,
    device: str | None = None,
    data_root: str | None = None,
    progress: Progress | None = None,
    tta: bool = False,
) -> SegmentationOutcome | None:
    """Judge a run's checkpoint on a split; writes `evaluation/<split>/metrics.json`.

    `data_root` replaces the run's `data.root`, for data that moved or another set of the same classes. `tta`:
    average over eight views of each scan. Under torchrun all processes share the scans, with the same result;
    all but the first one get None.
    """
    config = RunFolder(run).read_config(SegmentationConfig)
    split = split or config.evaluation.split
    source = config.data if data_root is None else replace(config.data, root=data_root)
    views = EIGHT_VIEWS if tta else AS_IT_IS
    with distributed.process_group(device or config.train.device):
        segmenter = load_segmenter(run, checkpoint, device)
        with distributed.main_first():  # it writes the index
            dataset = SegmentationDataset(source, split)
        judgement = judge_segmenter(segmenter.model, dataset, config.evaluation.batch_size, progress, views)
    if judgement is None:
        return None
    folder = RunFolder(run).evaluation / split
    summary = {
        "split": split,
        "checkpoint": segmenter.checkpoint.name,
        "frames": len(dataset),
        "views": len(views),
    }
    write_text(folder / "metrics.json", json.dumps(summary | judgement.to_dict(), indent=1) + "\n")
    return SegmentationOutcome(judgement, folder, segmenter.checkpoint)


@dataclass(frozen=True)
class Segmenter:
    """A trained model, ready to predict, with the config that it was trained with."""

    config: SegmentationConfig
    model: nn.Module  # a SegmenterModel
    checkpoint: Path


def load_segmenter(run: str | Path, checkpoint: str = "best", device: str | None = None) -> Segmenter:
    """A run's model with its averaged weights (or its last ones, where none were averaged), in eval mode."""
    folder = RunFolder(run)
    config = folder.read_config(SegmentationConfig)
    model, path = load_trained(
        folder, build_segmenter(config.model), checkpoint, device or config.train.device
    )
    return Segmenter(config, model, path)
