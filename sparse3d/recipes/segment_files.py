"""A trained segmenter on files: point clouds in, SemanticKITTI's .label files out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.data.semantic_classes import LabelMap
from sparse3d.frames import IGNORE, SegmentationFrame
from sparse3d.io.points import read_points
from sparse3d.io.semantickitti import write_labels
from sparse3d.models.instances import cluster_instances
from sparse3d.recipes.detect_files import point_files
from sparse3d.recipes.segmentation import load_segmenter
from sparse3d.recipes.segmentation_judge import AS_IT_IS, EIGHT_VIEWS, segment_frames


class SegmentedFile(NamedTuple):
    """One input file with the label (N,) and the object (N,) of each of its points; IGNORE and 0 for points
    that are not finite."""

    path: Path
    points: np.ndarray
    labels: np.ndarray
    instances: np.ndarray


def segment(
    run: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    checkpoint: str = "best",
    *,
    tta: bool = False,
    device: str | None = None,
) -> Iterator[SegmentedFile]:
    """Label every point of point cloud files (or folders of them); writes `out/<stem>.label`.

    Yields each file after its result is written: a row for each row of the input, with SemanticKITTI's ids
    and a number for each object, 0 for points that are not finite. `tta`: average over eight views of each
    cloud.
    """
    files = point_files(inputs)
    segmenter = load_segmenter(run, checkpoint, device)
    label_map = LabelMap(segmenter.config.data.classes)
    views = EIGHT_VIEWS if tta else AS_IT_IS
    for path in files:
        points = read_points(path)
        finite = np.isfinite(points).all(axis=1)
        labels = np.full(len(points), IGNORE, dtype=np.int64)
        frame = SegmentationFrame.unlabelled(path.stem, points[finite])
        (labels[finite],) = segment_frames(segmenter.model, [frame], views)
        instances = np.zeros(len(points), dtype=np.int64)
        instances[finite] = cluster_instances(points[finite], labels[finite], label_map.classes)
        write_labels(Path(out) / f"{path.stem}.label", label_map.to_raw(labels), instances)
        yield SegmentedFile(path, points, labels, instances)
