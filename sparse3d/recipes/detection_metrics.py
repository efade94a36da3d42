"""Which metrics judge a detector on which data set, and what each of them takes of a frame.

    kitti            average precision of KITTI's benchmark, in 2-D, BEV and 3-D
    nuscenes         NDS of nuScenes' benchmark
    waymo            AP and APH of Waymo's benchmark, levels 1 and 2
    argoverse2       CDS of Argoverse 2's benchmark, without its mapped region of interest
    centre_distance  nuScenes' precision and errors of what the model can be asked for: labels of at least one
                     point within its bounds (and, where a camera says what is labelled, in its image)

The benchmarks judge all labels, also those beyond the model's bounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from rich.table import Table

from sparse3d.errors import ConfigError
from sparse3d.evaluation import argoverse2, kitti, nuscenes, nuscenes_rules, waymo
from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.frames import Detections, LidarFrame
from sparse3d.geometry.rigid import transform_boxes
from sparse3d.io.kitti import KittiCalibration, KittiObjects, boxes_to_objects, image_boxes
from sparse3d.io.nuscenes_results import SampleBoxes
from sparse3d_ops.boxes import points_per_box

Metric = Literal["kitti", "nuscenes", "waymo", "argoverse2", "centre_distance"]

# What fits which data set; the first one is what training watches.
METRICS: Mapping[str, tuple[Metric, ...]] = {
    "kitti": ("kitti", "centre_distance"),
    "nuscenes": ("nuscenes", "centre_distance"),
    "waymo": ("waymo", "centre_distance"),
    "argoverse2": ("argoverse2", "centre_distance"),
    "kitti_raw": ("centre_distance",),
}

# The number that training watches, by the first metric.
BEST: Mapping[Metric, str] = {
    "kitti": "mAP_3d_moderate",
    "nuscenes": "NDS",
    "waymo": "mAPH_L2",
    "argoverse2": "CDS",
    "centre_distance": "mAP_centre_distance",
}


class Result(Protocol):
    """What every metric gives."""

    def table(self) -> Table: ...
    def to_dict(self) -> dict[str, Any]: ...


class Looked(NamedTuple):
    """A frame as recorded, as the network was shown it, and what it found (on the CPU)."""

    recorded: LidarFrame
    shown: LidarFrame
    found: Detections


def metrics_of_data(kind: str, wanted: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics that a config wants of a data set of this kind; without a wish, all that fit it.
    ConfigError for one that does not."""
    fitting = METRICS[kind]
    for name in wanted:
        if name not in fitting:
            raise ConfigError(
                f"evaluation.metrics: {name!r} does not fit data.kind {kind!r}; "
                f"fitting are {', '.join(fitting)}"
            )
    return tuple(wanted) or fitting


# ---- frames as the metrics take them -----------------------------------------------------------------------


def labelled(frame: LidarFrame, attribute_names: Sequence[str] = ()) -> FrameBoxes:
    """The labels with all that the data set says of them."""
    info = frame.box_info
    attributes = None
    if "attribute" in info and attribute_names:
        known = [nuscenes_rules.attribute_index(name) for name in attribute_names]
        attributes = np.array([*known, -1], dtype=np.int64)[info["attribute"]]  # -1, unknown, stays -1
    difficulty = info.get("difficulty")
    return FrameBoxes(
        frame.boxes,
        frame.labels,
        velocities=frame.known_velocities,
        attributes=attributes,
        num_points=info.get("points"),
        difficulty=None if difficulty is None else np.maximum(difficulty, 0),
        occlusion=info.get("occlusion"),
        tracks=info.get("track"),
    )


def detected(found: Detections) -> FrameBoxes:
    """Detections on the CPU."""
    velocities = None if found.velocities is None else found.velocities.numpy()
    return FrameBoxes(found.boxes.numpy(), found.labels.numpy(), found.scores.numpy(), velocities)


class FrameMaker(NamedTuple):
    """Turns frames of one data set into what metrics take."""

    class_names: tuple[str, ...]
    bounds: tuple[float, ...]  # of the model
    attribute_names: tuple[str, ...] = ()

    def pair(self, metric: Metric, looked: Looked) -> tuple[Any, Any]:
        """Labels and results of a frame for a metric."""
        makers: Mapping[Metric, Callable[[Looked], tuple[Any, Any]]] = {
            "kitti": self._kitti,
            "nuscenes": self._nuscenes,
            "waymo": self._waymo,
            "argoverse2": self._argoverse2,
            "centre_distance": self._centre_distance,
        }
        return makers[metric](looked)

    def _kitti(self, looked: Looked) -> tuple[KittiObjects, KittiObjects]:
        extra = looked.recorded.extra
        objects = as_objects(looked.found, self.class_names, extra["calibration"], extra["image_size"])
        return extra["objects"], objects.select(has_image_box(objects))

    def _nuscenes(self, looked: Looked) -> tuple[FrameBoxes, FrameBoxes]:
        extra, names = looked.recorded.extra, self.class_names
        racks = extra["other_boxes"][extra["other_categories"] == "static_object.bicycle_rack"]
        exclude = nuscenes_rules.in_racks(racks, names)
        truth = labelled(looked.recorded, self.attribute_names)
        found = self._with_attributes(looked.found)
        ego = extra["vehicle"][:2]
        one, two = (nuscenes_rules.countable(frame, names, ego, exclude) for frame in (truth, found))
        return one, two

    def _with_attributes(self, found: Detections) -> FrameBoxes:
        """With attributes as the speed suggests, where the model tells velocities."""
        frame = detected(found)
        if frame.velocities is None:
            return frame
        names = [self.class_names[label] for label in frame.labels]
        told = nuscenes_rules.attributes_by_speed(names, frame.velocities)
        return replace(
            frame, attributes=np.array([nuscenes_rules.attribute_index(name) for name in told], int)
        )

    def _waymo(self, looked: Looked) -> tuple[FrameBoxes, FrameBoxes]:
        return labelled(looked.recorded), detected(looked.found)

    def _argoverse2(self, looked: Looked) -> tuple[FrameBoxes, FrameBoxes]:
        return argoverse2.countable(labelled(looked.recorded)), argoverse2.countable(detected(looked.found))

    def _centre_distance(self, looked: Looked) -> tuple[FrameBoxes, FrameBoxes]:
        found = detected(looked.found)
        if "calibration" in looked.recorded.extra:
            extra = looked.recorded.extra
            left, top, right, bottom = image_boxes(found.boxes, extra["calibration"], extra["image_size"]).T
            found = found.select((right > left) & (bottom > top))
        return countable_boxes(looked.shown, self.bounds), found

    def submission(self, looked: Looked) -> KittiObjects | SampleBoxes | None:
        """The frame's part of the benchmark's result files, where there are such."""
        extra = looked.recorded.extra
        if "calibration" in extra:
            return self._kitti(looked)[1]
        if not self.attribute_names:
            return None
        found = self._with_attributes(looked.found)
        pose = extra["world_from_lidar"]
        names = np.array([self.class_names[label] for label in found.labels], dtype=np.str_)
        tags = [""] * len(found)
        velocities = np.zeros((len(found), 2))
        if found.velocities is not None and found.attributes is not None:
            velocities = found.velocities @ pose[:2, :2].T
            tags = [nuscenes_rules.ATTRIBUTES[i] if i >= 0 else "" for i in found.attributes]
        boxes = transform_boxes(found.boxes.astype(np.float64), pose)
        assert found.scores is not None
        return SampleBoxes(boxes, velocities, names, found.scores, np.array(tags, dtype=np.str_))


def countable_boxes(frame: LidarFrame, bounds: Sequence[float]) -> FrameBoxes:
    """The labels that a detector with these bounds can be asked for, see the head of this file."""
    points = torch.from_numpy(np.ascontiguousarray(frame.points[:, :3]))
    count = points_per_box(points, torch.from_numpy(np.ascontiguousarray(frame.boxes))).numpy()
    low, high = np.array(bounds[:3]), np.array(bounds[3:])
    keep = ((frame.boxes[:, :3] >= low) & (frame.boxes[:, :3] < high)).all(axis=1) & (count > 0)
    if "calibration" in frame.extra:
        left, top, right, bottom = image_boxes(
            frame.boxes, frame.extra["calibration"], frame.extra["image_size"]
        ).T
        keep &= (right > left) & (bottom > top)
    occlusion = frame.box_info.get("occlusion")
    return FrameBoxes(
        frame.boxes[keep],
        frame.labels[keep],
        num_points=count[keep],
        occlusion=None if occlusion is None else occlusion[keep],
    )


def as_objects(
    found: Detections,
    class_names: Sequence[str],
    calibration: KittiCalibration,
    image_size: tuple[int, int],
) -> KittiObjects:
    """Detections (on the CPU) as KITTI result rows, all of them and in order; the image box of one that the
    camera does not see is -1 -1 -1 -1."""
    objects = boxes_to_objects(
        found.boxes.numpy(),
        np.asarray(class_names, dtype=np.str_)[found.labels.numpy()],
        found.scores.numpy(),
        calibration,
        image_size,
    )
    seen = has_image_box(objects)
    return replace(objects, boxes_image=np.where(seen[:, None], objects.boxes_image, -1.0))


def has_image_box(objects: KittiObjects) -> np.ndarray:
    """(M,) bool: the image box has an area."""
    left, top, right, bottom = objects.boxes_image.T
    return (right > left) & (bottom > top)


# ---- results -----------------------------------------------------------------------------------------------

# labels of all frames, results of all frames, class names -> result
EVALUATE: Mapping[Metric, Callable[[Sequence[Any], Sequence[Any], Sequence[str]], Result]] = {
    "kitti": kitti.evaluate,
    "nuscenes": partial(nuscenes.evaluate, absent="zero"),
    "waymo": waymo.evaluate,
    "argoverse2": partial(argoverse2.evaluate, absent="zero"),
    "centre_distance": nuscenes.evaluate,
}


def watched(metric: Metric, result: Result) -> dict[str, float]:
    """The numbers that training watches, in percent: `BEST[metric]` first."""
    best = BEST[metric]
    match result:
        case kitti.KittiResult():
            names = dict.fromkeys(row.class_name for row in result.rows)
            classes = {f"{name}_3d_moderate": result.value(name, "3d") for name in names}
            return {best: result.mean("3d"), "mAP_bev_moderate": result.mean("bev"), **classes}
        case nuscenes.NuscenesResult():
            classes = {f"{score.class_name}_AP": 100 * score.mean_ap for score in result.classes}
            means = {"NDS": 100 * result.score, "mAP_centre_distance": 100 * result.mean_ap}
            return {best: means[best], **means, **result.errors, **classes}
        case waymo.WaymoResult():
            names = dict.fromkeys(row.class_name for row in result.rows)
            return {best: result.mean(), "mAP_L2": result.mean(heading=False), "mAPH_L1": result.mean(1)} | {
                f"{name}_APH_L2": result.value(name) for name in names
            }
        case argoverse2.Argoverse2Result():
            classes = {f"{score.class_name}_CDS": 100 * score.cds for score in result.classes}
            return {best: 100 * result.mean(), "mAP": 100 * result.mean("ap"), **classes}
    raise AssertionError(f"no numbers to watch in {type(result)}")
