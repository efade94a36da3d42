"""How good a detector is on a data set of drives: what its benchmark measures, by the benchmark's own rules.

    nuScenes      mAP by distance of centres, and NDS where the detector tells velocities
    Argoverse 2   CDS, without the benchmark's map of where labels count
    Waymo         AP and APH of both levels
    KITTI raw     mAP by distance of centres, of labels within the detector's bounds

Labels are those recorded, also out of the bounds that a detector's points are cropped to, except for KITTI
raw.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import nn

from sparse3d.data.argoverse2 import Argoverse2Config
from sparse3d.data.nuscenes import NuscenesConfig
from sparse3d.data.open import DataConfig
from sparse3d.data.sequences import SequenceDataset
from sparse3d.data.waymo import WaymoConfig
from sparse3d.engine import distributed
from sparse3d.evaluation import argoverse2, nuscenes, nuscenes_rules, waymo
from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.frames import DetectionBatch, Detections, LidarFrame
from sparse3d.geometry.rigid import transform_boxes
from sparse3d.io.files import write_text
from sparse3d.io.nuscenes_results import SampleBoxes, write_results
from sparse3d.models.detectors import DetectorModel
from sparse3d.recipes.detection_judge import Progress

Result = nuscenes.NuscenesResult | argoverse2.Argoverse2Result | waymo.WaymoResult

_RACK = "static_object.bicycle_rack"


class FoundInFrame(NamedTuple):
    """A frame's id, pose and what was found in it."""

    frame_id: str
    world_from_lidar: np.ndarray
    found: FrameBoxes


@dataclass(frozen=True)
class DriveJudgement:
    """The benchmark's result, and the detections that it was taken from."""

    result: Result
    class_names: tuple[str, ...]
    frames: tuple[FoundInFrame, ...]

    def tables(self) -> tuple[Table, ...]:
        """For a terminal."""
        return (self.result.table(),)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return self.result.to_dict()

    def metrics(self) -> dict[str, float]:
        """The numbers that training watches, in percent; `best_metric` is among them."""
        match self.result:
            case waymo.WaymoResult() as found:
                return {
                    "mAPH_L2": found.mean(2),
                    "mAP_L2": found.mean(2, heading=False),
                    "mAPH_L1": found.mean(1),
                }
            case argoverse2.Argoverse2Result() as found:
                return {"CDS": 100 * found.mean("cds"), "mAP": 100 * found.mean("ap")}
            case found:
                return {"mAP": 100 * found.mean_ap, "detection_score": 100 * found.score}

    def write(self, folder: Path) -> None:
        """`results.jsonl`, a line of JSON a frame; of nuScenes also `results_nusc.json`, as its server takes
        it."""
        keys = ("x", "y", "z", "length", "width", "height", "yaw")
        lines = []
        for frame in self.frames:
            found = frame.found
            rows = zip(found.labels.tolist(), _scores(found).tolist(), found.boxes.tolist(), strict=True)
            objects = [
                {"class": self.class_names[label], "score": score, **dict(zip(keys, box, strict=True))}
                for label, score, box in rows
            ]
            lines.append(json.dumps({"frame": frame.frame_id, "objects": objects}))
        write_text(folder / "results.jsonl", "".join(f"{line}\n" for line in lines))
        if isinstance(self.result, nuscenes.NuscenesResult) and set(self.class_names) <= set(
            nuscenes_rules.CLASSES
        ):
            samples = {frame.frame_id: _in_world(frame, self.class_names) for frame in self.frames}
            write_results(folder / "results_nusc.json", "detection", samples)


def best_metric(config: DataConfig) -> str:
    """The one of `DriveJudgement.metrics` that the best checkpoint is chosen by."""
    match config:
        case WaymoConfig():
            return "mAPH_L2"
        case Argoverse2Config():
            return "CDS"
    return "mAP"


def judge_drives(
    model: nn.Module,
    dataset: SequenceDataset[Any],
    bounds: Sequence[float],
    batch_size: int,
    progress: Progress | None = None,
) -> DriveJudgement | None:
    """Run a detector with these bounds (in eval mode) over every frame of a data set of its classes.

    Several processes share the frames; the first one judges what all of them found, the others get None.
    """
    assert isinstance(model, DetectorModel)
    device = next(model.parameters()).device

    def look(rows: range) -> list[tuple[FrameBoxes, FrameBoxes, FoundInFrame]]:
        frames = [dataset[i] for i in rows]
        with torch.no_grad():
            found = model.predict(DetectionBatch.collate(frames).to(device))
        return [
            _frame_result(dataset, dataset.labelled(row), detections.cpu(), bounds)
            for row, detections in zip(rows, found, strict=True)
        ]

    shared = distributed.share_out(len(dataset), batch_size, look, progress)
    if shared is None:
        return None
    truth, found = [frame[0] for frame in shared], [frame[1] for frame in shared]
    names = dataset.class_names
    match dataset.config:
        case WaymoConfig():
            result = waymo.evaluate(truth, found, names)
        case Argoverse2Config():
            result = argoverse2.evaluate(truth, found, names)
        case _:
            result = nuscenes.evaluate(truth, found, names)
    return DriveJudgement(result, names, tuple(frame[2] for frame in shared))


def _frame_result(
    dataset: SequenceDataset[Any], frame: LidarFrame, detections: Detections, bounds: Sequence[float]
) -> tuple[FrameBoxes, FrameBoxes, FoundInFrame]:
    """The labels and the detections that count, and all detections."""
    names, info = dataset.class_names, frame.box_info
    velocities = None if detections.velocities is None else detections.velocities.numpy()
    found = FrameBoxes(
        detections.boxes.numpy(), detections.labels.numpy(), detections.scores.numpy(), velocities
    )
    truth = FrameBoxes(
        frame.boxes,
        frame.labels,
        velocities=frame.known_velocities,
        attributes=_attributes(dataset, info["attribute"]),
        num_points=info["points"],
        difficulty=np.maximum(info["difficulty"], 0),
        tracks=info["track"],
    )
    everything = FoundInFrame(frame.frame_id, frame.extra["world_from_lidar"], found)
    match dataset.config:
        case NuscenesConfig():
            racks = frame.extra["other_boxes"][frame.extra["other_categories"] == _RACK]
            excluded = nuscenes_rules.in_racks(racks, names)
            place = frame.extra["vehicle"][:2].tolist()
            if velocities is not None:
                found = _with_attributes(found, names)
            truth, found = (nuscenes_rules.countable(part, names, place, excluded) for part in (truth, found))
        case Argoverse2Config():
            truth, found = argoverse2.countable(truth), argoverse2.countable(found)
        case WaymoConfig():
            pass  # whose measure has all rules in it
        case _:
            inside = (truth.boxes[:, :3] >= bounds[:3]) & (truth.boxes[:, :3] < bounds[3:])
            truth = truth.select(np.all(inside, axis=1))
    return truth, found, everything


def _attributes(dataset: SequenceDataset[Any], attributes: np.ndarray) -> np.ndarray:
    """Numbers of the data set's attributes -> those of nuScenes' rules."""
    if not isinstance(dataset.config, NuscenesConfig):
        return attributes
    known = [nuscenes_rules.attribute_index(name) for name in dataset.attribute_names]
    return np.array([*known, -1], dtype=np.int64)[attributes]  # -1 picks the last


def _with_attributes(found: FrameBoxes, class_names: Sequence[str]) -> FrameBoxes:
    """Detections with the attribute that their class and speed suggest."""
    assert found.velocities is not None
    names = [class_names[int(label)] for label in found.labels]
    likely = nuscenes_rules.attributes_by_speed(names, found.velocities)
    attributes = np.array([nuscenes_rules.attribute_index(name) for name in likely], dtype=np.int64)
    return FrameBoxes(found.boxes, found.labels, found.scores, found.velocities, attributes)


def _in_world(frame: FoundInFrame, class_names: Sequence[str]) -> SampleBoxes:
    found, pose = frame.found, frame.world_from_lidar
    velocities = np.full((len(found), 2), np.nan) if found.velocities is None else found.velocities
    names = [class_names[int(label)] for label in found.labels]
    tags = nuscenes_rules.attributes_by_speed(names, velocities)
    return SampleBoxes(
        transform_boxes(found.boxes.astype(np.float64), pose),
        velocities @ pose[:2, :2].T,
        np.array(names, dtype=np.str_),
        _scores(found).astype(np.float64),
        np.array(tags, dtype=np.str_),
    )


def _scores(found: FrameBoxes) -> np.ndarray:
    assert found.scores is not None
    return found.scores
