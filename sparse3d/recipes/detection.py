"""LiDAR object detection from config to a judged model: train, evaluate, load. `detect_files` applies it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sparse3d.data.augment import AugmentConfig
from sparse3d.data.balance import ClassBalanced
from sparse3d.data.labelled import LabelledFrames
from sparse3d.data.loader import FrameDataset
from sparse3d.data.open import DataConfig, open_dataset
from sparse3d.engine import distributed
from sparse3d.engine.loop import Hook
from sparse3d.frames import DetectionBatch, Detections, LidarFrame
from sparse3d.io.files import write_text
from sparse3d.models.detectors import DetectorModel, build_detector
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d.recipes.detection_judge import Judgement, Progress, judge
from sparse3d.recipes.detection_metrics import BEST
from sparse3d.recipes.generated import generate_scenes
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.training import FrameTask, Metrics, TrainOutcome, load_trained, train_on_frames


def train(
    config: DetectionConfig,
    out: str | Path,
    resume: bool = False,
    *,
    if_begun: bool = False,
    progress_of_data: Progress | None = None,
    extra_hooks: Sequence[Hook] = (),
) -> TrainOutcome:
    """Train into the run folder `out`, as `train_on_frames` does. Missing data are generated first where the
    config says how (`progress_of_data(done, scenes)` is called on the way)."""
    task = FrameTask(
        prepare=lambda: prepare_data(config, progress_of_data),
        dataset=lambda: training_frames(config),
        model=lambda: build_detector(config.model),
        metrics=lambda: _metrics(config),
        best=BEST[config.metrics[0]],
    )
    return train_on_frames(config, task, out, resume, if_begun, extra_hooks)


def _metrics(config: DetectionConfig) -> Metrics:
    """What training watches, on the frames of the validation split."""
    validation = open_dataset(config.dataset, config.evaluation.split)

    def metrics(model: nn.Module) -> Mapping[str, float] | None:
        judgement = judge(
            model,
            validation,
            config.model.bounds,
            config.evaluation.batch_size,
            metrics=config.metrics[:1],
        )
        return None if judgement is None else judgement.watched()

    return metrics


def training_frames(config: DetectionConfig) -> FrameDataset:
    """The frames of the training split, in the order and number that the config asks for."""
    # Without steps first: for how long they last depends on the number of frames, with `balance` too.
    frames = open_dataset(config.dataset, config.loader.split, AugmentConfig())
    balanced = ClassBalanced(frames, config.train.seed) if config.loader.balance == "classes" else None
    frames.epochs = config.train.epochs
    if config.train.steps is not None:
        samples = config.train.steps * config.loader.batch_size * config.train.accumulate
        samples *= distributed.world_size()
        frames.epochs = math.ceil(samples / max(len(balanced or frames), 1))
    frames.augment_with(config.augment)
    return balanced or frames


def prepare_data(config: DetectionConfig, progress_of_data: Progress | None = None) -> None:
    """Generate the data where they are missing and the config says how; a started generation is continued."""
    if config.generate is not None:
        generate_scenes(config.data.root, config.generate, False, progress_of_data)


@dataclass(frozen=True)
class EvaluationOutcome:
    """What was found, the folder that it was written to, and which checkpoint was judged on which data."""

    judgement: Judgement
    folder: Path
    checkpoint: Path
    dataset: LabelledFrames[DataConfig]
    bounds: tuple[float, ...]  # of the model


def evaluate(
    run: str | Path,
    split: str | None = None,
    checkpoint: str = "best",
    *,
    device: str | None = None,
    data_root: str | None = None,
    progress: Progress | None = None,
) -> EvaluationOutcome | None:
    """Judge a run's checkpoint on a split; writes metrics.json and the benchmark's result files to
    `evaluation/<split>/`.

    `data_root` replaces the run's `data.root`, for data that moved or another set of the same classes. Under
    torchrun all processes share the frames, with the same result; all but the first one get None.
    """
    config = RunFolder(run).read_config(DetectionConfig)
    split = split or config.evaluation.split
    source = config.dataset if data_root is None else replace(config.dataset, root=data_root)
    with distributed.process_group(device or config.train.device):
        detector = load_detector(run, checkpoint, device)
        with distributed.main_first():  # it writes the index
            dataset = open_dataset(source, split)
        judgement = judge(
            detector.model,
            dataset,
            config.model.bounds,
            config.evaluation.batch_size,
            progress,
            config.metrics,
        )
    if judgement is None:
        return None
    folder = RunFolder(run).evaluation / split
    judgement.write_results(folder)
    summary = {"split": split, "checkpoint": detector.checkpoint.name, "frames": len(dataset)}
    write_text(folder / "metrics.json", json.dumps(summary | judgement.to_dict(), indent=1) + "\n")
    return EvaluationOutcome(judgement, folder, detector.checkpoint, dataset, tuple(config.model.bounds))


@dataclass(frozen=True)
class Detector:
    """A trained model, ready to predict, with the config that it was trained with."""

    config: DetectionConfig
    model: nn.Module  # a DetectorModel
    checkpoint: Path

    def predict(self, frames: list[LidarFrame]) -> list[Detections]:
        """Detections of each frame; only points matter."""
        device = next(self.model.parameters()).device
        with torch.no_grad():
            assert isinstance(self.model, DetectorModel)
            return self.model.predict(DetectionBatch.collate(frames).to(device))


def load_detector(run: str | Path, checkpoint: str = "best", device: str | None = None) -> Detector:
    """A run's model with its averaged weights (or its last ones, where none were averaged), in eval mode."""
    folder = RunFolder(run)
    config = folder.read_config(DetectionConfig)
    model, path = load_trained(
        folder, build_detector(config.model), checkpoint, device or config.train.device
    )
    return Detector(config, model, path)
