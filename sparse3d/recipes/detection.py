"""LiDAR object detection from config to boxes: train, evaluate, detect."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sparse3d.data.kitti import KittiDataset
from sparse3d.data.kitti_index import find_root
from sparse3d.data.loader import make_loader
from sparse3d.data.minidrive import write_minidrive
from sparse3d.data.minidrive.write import MANIFEST
from sparse3d.engine import distributed, hooks
from sparse3d.engine.checkpoint import load_weights, read_checkpoint
from sparse3d.engine.loop import Hook, Trainer
from sparse3d.engine.progress import ShowProgress, WriteMetrics
from sparse3d.engine.seed import seed_everything, use_deterministic_algorithms
from sparse3d.engine.state import restore
from sparse3d.errors import DataError
from sparse3d.evaluation import kitti
from sparse3d.frames import DetectionBatch, Detections, LidarFrame
from sparse3d.io.files import write_text
from sparse3d.io.kitti import KittiObjects, boxes_to_objects, write_objects
from sparse3d.io.points import POINT_SUFFIXES, read_valid_points
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d.recipes.run_folder import RunFolder

BEST_METRIC = "mAP_3d_moderate"
Progress = Callable[[int, int], None]  # (done, total)


class TrainOutcome(NamedTuple):
    """Where the run is, and why it ended: "finished" or the reason of a clean stop."""

    run: Path
    ended: str


def train(
    config: DetectionConfig,
    out: str | Path,
    resume: bool = False,
    *,
    progress_of_data: Progress | None = None,
    extra_hooks: Sequence[Hook] = (),
) -> TrainOutcome:
    """Train into the run folder `out`; `resume` continues the run in it, bit for bit.

    Missing data are generated first where the config says how (`progress_of_data(done, scenes)` is called on
    the way). Under torchrun all processes train together.
    """
    run = RunFolder(out, config.checkpoint.keep)
    with distributed.process_group(config.train.device) as device:
        if distributed.is_main():
            run.start(config, resume)
            prepare_data(config, progress_of_data)
        distributed.barrier()
        if config.train.deterministic:
            use_deterministic_algorithms()
        seed_everything(config.train.seed, distributed.rank())
        trainer = Trainer(
            CenterPoint(config.model),
            make_loader(
                KittiDataset(config.dataset, config.loader.split, config.augment),
                config.loader.batch_size,
                workers=config.loader.workers,
                shuffle=True,
                seed=config.train.seed,
                drop_last=True,  # ranks then have equally many batches, and batch norm never sees a tiny one
                rank=distributed.rank(),
                world_size=distributed.world_size(),
            ),
            config.train,
            config.optimizer,
            config.schedule,
            hooks=[*_hooks(config, run), *extra_hooks],
            device=device,
        )
        if resume and (last := run.checkpoints.last()) is not None:
            restore(trainer, read_checkpoint(last), last)
        return TrainOutcome(run.path, trainer.train())


def _hooks(config: DetectionConfig, run: RunFolder) -> list[Hook]:
    validation = KittiDataset(config.dataset, config.evaluation.split)

    def judge(model: nn.Module) -> Mapping[str, float]:
        assert isinstance(model, CenterPoint)
        found = detect_dataset(model, validation, config.evaluation.batch_size)
        return metrics_of(kitti.evaluate(*found, config.data.classes))

    every = config.log.every
    made: list[Hook] = [
        hooks.Evaluate(judge, config.evaluation.every_epochs),
        WriteMetrics(run.metrics, every),
        ShowProgress(every),
        hooks.StopOnSignal(),
    ]
    if config.log.tensorboard:
        made.append(hooks.WriteTensorBoard(run.path / "tensorboard", every))
    if config.train.max_minutes is not None:
        made.append(hooks.TimeBudget(config.train.max_minutes))
    return [*made, hooks.SaveCheckpoints(run.checkpoints, config.checkpoint, BEST_METRIC)]


def prepare_data(config: DetectionConfig, progress_of_data: Progress | None = None) -> None:
    """Generate the data where they are missing and the config says how; a started generation is continued."""
    if config.generate is None:
        return
    try:
        root = find_root(config.data.root)
    except DataError:
        root = Path(config.data.root).expanduser()
    if root.exists() and not (root / MANIFEST).exists():
        return  # somebody's own data
    recipe = config.generate
    write_minidrive(
        root,
        recipe.scenes,
        recipe.seed,
        recipe.simulator,
        val_fraction=recipe.val_fraction,
        progress=progress_of_data,
    )


@dataclass(frozen=True)
class EvaluationOutcome:
    """The result and the folder that it was written to."""

    result: kitti.KittiResult
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
) -> EvaluationOutcome:
    """Judge a run's checkpoint on a split; writes `evaluation/<split>/`: kitti.json, a result file a frame.

    `data_root` replaces the run's `data.root`, for data that moved or another set of the same classes.
    """
    detector = load_detector(run, checkpoint, device)
    config = detector.config
    split = split or config.evaluation.split
    source = config.dataset if data_root is None else replace(config.dataset, root=data_root)
    dataset = KittiDataset(source, split)
    truth, found = detect_dataset(detector.model, dataset, config.evaluation.batch_size, progress)
    result = kitti.evaluate(truth, found, config.data.classes)
    folder = RunFolder(run).evaluation / split
    for frame_id, objects in zip(dataset.frame_ids, found, strict=True):
        write_objects(folder / "results" / f"{frame_id}.txt", objects)
    summary = {"split": split, "checkpoint": detector.checkpoint.name, **result.to_dict()}
    write_text(folder / "kitti.json", json.dumps(summary, indent=1) + "\n")
    return EvaluationOutcome(result, folder, detector.checkpoint)


def metrics_of(result: kitti.KittiResult) -> dict[str, float]:
    """The numbers that training watches: AP R40 in percent, moderate; mAP over classes with ground truth."""
    metrics = {BEST_METRIC: result.mean("3d"), "mAP_bev_moderate": result.mean("bev")}
    for name in dict.fromkeys(row.class_name for row in result.rows):
        metrics[f"{name}_3d_moderate"] = result.value(name, "3d")
    return {name: value for name, value in metrics.items() if name == BEST_METRIC or not math.isnan(value)}


class FrameDetections(NamedTuple):
    """One input file with what was found in it."""

    path: Path
    points: np.ndarray
    detections: Detections


def detect(
    run: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    score: float = 0.3,
    checkpoint: str = "best",
    *,
    device: str | None = None,
) -> Iterator[FrameDetections]:
    """Detect objects in point cloud files (or folders of them); writes `out/<stem>.json`, yields each frame.

    Detections below `score` are left out. The clouds are in the LiDAR frame, x forward, y left, z up.
    """
    files = _point_files(inputs)
    detector = load_detector(run, checkpoint, device)
    for path in files:
        points = read_valid_points(path)
        frame = LidarFrame(path.stem, points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
        found = detector.predict([frame])[0].cpu()
        keep = found.scores >= score
        found = Detections(found.boxes[keep], found.scores[keep], found.labels[keep])
        write_text(
            Path(out) / f"{path.stem}.json", json.dumps(_as_json(path, found, detector), indent=1) + "\n"
        )
        yield FrameDetections(path, points, found)


@dataclass(frozen=True)
class Detector:
    """A trained model, ready to predict, with the config that it was trained with."""

    config: DetectionConfig
    model: CenterPoint
    checkpoint: Path

    def predict(self, frames: list[LidarFrame]) -> list[Detections]:
        """Detections of each frame; only points matter."""
        device = next(self.model.parameters()).device
        with torch.no_grad():
            return self.model.predict(DetectionBatch.collate(frames).to(device))


def load_detector(run: str | Path, checkpoint: str = "best", device: str | None = None) -> Detector:
    """A run's model with its averaged weights (or its last ones, where none were averaged), in eval mode."""
    folder = RunFolder(run)
    config = folder.read_config(DetectionConfig)
    path = folder.checkpoints.find(checkpoint)
    stored = read_checkpoint(path)
    model = CenterPoint(config.model)
    load_weights(model, stored.part("ema") or stored.part("model"), path)
    with distributed.process_group(device or config.train.device) as place:
        return Detector(config, model.to(place).eval(), path)


def detect_dataset(
    model: CenterPoint, dataset: KittiDataset, batch_size: int, progress: Progress | None = None
) -> tuple[list[KittiObjects], list[KittiObjects]]:
    """(ground truth, results) of every frame of a data set as KITTI objects; `model` is in eval mode."""
    device = next(model.parameters()).device
    truth: list[KittiObjects] = []
    results: list[KittiObjects] = []
    for start in range(0, len(dataset), batch_size):
        frames = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        with torch.no_grad():
            found = model.predict(DetectionBatch.collate(frames).to(device))
        truth += [frame.extra["objects"] for frame in frames]
        pairs = zip(frames, found, strict=True)
        results += [_as_objects(frame, d.cpu(), dataset.class_names) for frame, d in pairs]
        if progress is not None:
            progress(len(truth), len(dataset))
    return truth, results


def _as_objects(frame: LidarFrame, found: Detections, class_names: Sequence[str]) -> KittiObjects:
    """Detections as KITTI result rows; those that the camera does not see are no results there."""
    objects = boxes_to_objects(
        found.boxes.numpy(),
        np.asarray(class_names, dtype=np.str_)[found.labels.numpy()],
        found.scores.numpy(),
        frame.extra["calibration"],
        frame.extra["image_size"],
    )
    left, top, right, bottom = objects.boxes_image.T
    return objects.select((right > left) & (bottom > top))


def _as_json(path: Path, found: Detections, detector: Detector) -> dict[str, object]:
    names = detector.config.data.classes
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    keys = ("x", "y", "z", "length", "width", "height", "yaw")
    return {
        "input": path.name,
        "frame": "LiDAR: x forward, y left, z up; x, y, z is the centre in metres, yaw in radians from +x",
        "objects": [
            {"class": names[label], "score": score, **dict(zip(keys, box, strict=True))}
            for label, score, box in rows
        ],
    }


def _point_files(inputs: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            inside = sorted(path for path in given.iterdir() if path.suffix.lower() in POINT_SUFFIXES)
            if not inside:
                raise DataError(given, f"no point clouds in this folder ({', '.join(POINT_SUFFIXES)})")
            files += inside
        elif given.is_file():
            files.append(given)
        else:
            raise DataError(given, "no such file or folder")
    stems = [path.stem for path in files]
    twice = next((path for path in files if stems.count(path.stem) > 1), None)
    if twice is not None:
        raise DataError(
            twice, "another input has the same name, and their results would overwrite each other"
        )
    return files
