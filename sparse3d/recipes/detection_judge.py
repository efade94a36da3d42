"""A trained detector over every frame of a data set, judged by the metrics that fit it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import nn

from sparse3d.data.augment import RangeFilter
from sparse3d.data.labelled import LabelledFrames
from sparse3d.data.open import DataConfig
from sparse3d.data.sequences import SequenceDataset
from sparse3d.engine import distributed
from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.io.files import write_text
from sparse3d.io.kitti import KittiObjects, write_objects
from sparse3d.io.nuscenes_results import SampleBoxes, write_results
from sparse3d.models.detectors import DetectorModel
from sparse3d.recipes.detection_metrics import (
    EVALUATE,
    FrameMaker,
    Looked,
    Metric,
    Result,
    metrics_of_data,
    watched,
)

Progress = Callable[[int, int], None]  # (done, total)


class JudgedFrame(NamedTuple):
    """What was found in a frame: `truth` and `found` as the measure by centre distances sees them."""

    frame_id: str
    truth: FrameBoxes
    found: FrameBoxes
    pairs: Mapping[Metric, tuple[Any, Any]]  # labels and results, as each metric takes them
    submission: KittiObjects | SampleBoxes | None


@dataclass(frozen=True)
class Judgement:
    """Results of the metrics, the most important one first, and the frames that they saw."""

    results: Mapping[Metric, Result]
    frames: tuple[JudgedFrame, ...]
    class_names: tuple[str, ...]

    def tables(self) -> tuple[Table, ...]:
        """For a terminal."""
        return tuple(result.table() for result in self.results.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return {name: result.to_dict() for name, result in self.results.items()}

    def watched(self) -> dict[str, float]:
        """What training watches, from the first metric: `detection_metrics.BEST` first, and of the others
        those that are defined on these data."""
        metric, result = next(iter(self.results.items()))
        (best, value), *others = watched(metric, result).items()
        return {best: value} | {name: value for name, value in others if not np.isnan(value)}

    def write_results(self, folder: Path) -> None:
        """The detections as their benchmark takes them: KITTI's file for each frame, nuScenes' one JSON; of
        other data sets `results.jsonl`, with a line of JSON for each frame."""
        samples, lines = {}, []
        for frame in self.frames:
            if isinstance(frame.submission, KittiObjects):
                write_objects(folder / "results" / f"{frame.frame_id}.txt", frame.submission)
            elif frame.submission is not None:
                samples[frame.frame_id] = frame.submission
            else:
                objects = objects_of(frame.found, self.class_names)
                lines.append(json.dumps({"frame": frame.frame_id, "objects": objects}) + "\n")
        if samples:
            write_results(folder / "results_nusc.json", "detection", samples)
        if lines:
            write_text(folder / "results.jsonl", "".join(lines))


def objects_of(found: FrameBoxes, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Detections for JSON: class, score, and the box in the LiDAR frame, metres and radians."""
    assert found.scores is not None
    keys = ("x", "y", "z", "length", "width", "height", "yaw")
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [
        {"class": class_names[label], "score": score, **dict(zip(keys, box, strict=True))}
        for label, score, box in rows
    ]


def judge(
    model: nn.Module,
    dataset: LabelledFrames[DataConfig],
    bounds: Sequence[float],
    batch_size: int,
    progress: Progress | None = None,
    metrics: Sequence[Metric] = (),
) -> Judgement | None:
    """Run a detector with these bounds (in eval mode) over every frame of a data set of its classes.

    `metrics` are those that fit the data set unless some are named. Several processes share the frames; the
    first one judges what all of them found, the others get None.
    """
    assert isinstance(model, DetectorModel)
    names = metrics_of_data(dataset.config.kind, metrics)
    device = next(model.parameters()).device
    attributes = dataset.attribute_names if isinstance(dataset, SequenceDataset) else ()
    maker = FrameMaker(dataset.class_names, tuple(bounds), attributes)

    def look(rows: range) -> list[JudgedFrame]:
        recorded = [dataset.frame(i) for i in rows]
        shown = [as_shown(dataset, frame) for frame in recorded]
        with torch.no_grad():
            found = model.predict(DetectionBatch.collate(shown).to(device))
        return [
            _judged(maker, names, Looked(*frames[:2], frames[2].cpu()))
            for frames in zip(recorded, shown, found, strict=True)
        ]

    frames = distributed.share_out(len(dataset), batch_size, look, progress)
    if frames is None:
        return None
    results: dict[Metric, Result] = {
        name: EVALUATE[name](
            [frame.pairs[name][0] for frame in frames],
            [frame.pairs[name][1] for frame in frames],
            dataset.class_names,
        )
        for name in names
    }
    return Judgement(results, tuple(frames), dataset.class_names)


def as_shown(dataset: LabelledFrames[DataConfig], recorded: LidarFrame) -> LidarFrame:
    """A recorded frame as the network is shown it for evaluation."""
    frame, bounds = dataset.seen(recorded), dataset.config.bounds
    return frame if bounds is None else RangeFilter(bounds=bounds)(frame, np.random.default_rng(0))


def _judged(maker: FrameMaker, names: Sequence[Metric], looked: Looked) -> JudgedFrame:
    pairs: dict[Metric, tuple[Any, Any]] = {name: maker.pair(name, looked) for name in names}
    truth, found = pairs.get("centre_distance") or maker.pair("centre_distance", looked)
    return JudgedFrame(looked.recorded.frame_id, truth, found, pairs, maker.submission(looked))
