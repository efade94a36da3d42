"""Ground truth and results of all frames laid end to end, with the overlaps of every pair within a frame.

Overlaps are taken as the KITTI benchmark takes them: in the image between 2-D boxes, and in the rectified
camera frame (x right, y down, z forward) between boxes that stand on `locations` and reach from y - h to y,
seen from above in the x-z plane. Row p of a pair array belongs to detection d and ground truth g of frame f,
where p = pair_start[f] + (d - det_start[f]) * (gt_start[f + 1] - gt_start[f]) + (g - gt_start[f]).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparse3d.io.kitti import KittiObjects
from sparse3d_ops.boxes import box_iou_3d, box_iou_bev

DONT_CARE = "dontcare"


@dataclass(frozen=True)
class KittiFrames:
    """G ground-truth rows, D detections and P pairs of F frames.

    `starts` (3, F + 1) int64: where each frame's ground truth, detections and pairs begin. Names are in lower
    case; heights are those of the image boxes in pixels. `overlap_image` (P,) is over the union, but over the
    detection's own area where the ground truth is a DontCare region; `overlap_bev` and `overlap_3d` (P,) are
    0 there. `similarity` (P,) is (1 + cos(difference of alpha)) / 2. `has_alpha`: no detection carries
    KITTI's -10 for unknown.
    """

    starts: np.ndarray
    gt_names: np.ndarray
    gt_heights: np.ndarray
    gt_occluded: np.ndarray
    gt_truncated: np.ndarray
    det_names: np.ndarray
    det_heights: np.ndarray
    scores: np.ndarray
    overlap_image: np.ndarray
    overlap_bev: np.ndarray
    overlap_3d: np.ndarray
    similarity: np.ndarray
    has_alpha: bool


def join_frames(ground_truth: Sequence[KittiObjects], results: Sequence[KittiObjects]) -> KittiFrames:
    """Lay frames end to end; `results[i]` answers `ground_truth[i]`. Empty frames are legal."""
    if len(ground_truth) != len(results):
        raise ValueError(f"{len(results)} result frames for {len(ground_truth)} ground-truth frames")
    for i, frame in enumerate(results):
        if not np.isfinite(frame.scores).all():
            raise ValueError(f"results[{i}] has a score that is not finite")
    sizes = np.array([(len(g), len(d), len(g) * len(d)) for g, d in zip(ground_truth, results, strict=True)])
    starts = np.zeros((3, len(ground_truth) + 1), dtype=np.int64)
    starts[:, 1:] = np.cumsum(sizes.reshape(-1, 3), axis=0).T
    pairs = [_overlaps(g, d) for g, d in zip(ground_truth, results, strict=True)]
    pairs = np.concatenate([np.zeros((4, 0)), *pairs], axis=1)
    alpha = _joined([d.alpha for d in results])
    return KittiFrames(
        starts=starts,
        gt_names=_names(ground_truth),
        gt_heights=_joined([_heights(g) for g in ground_truth]),
        gt_occluded=_joined([g.occluded for g in ground_truth]),
        gt_truncated=_joined([g.truncated for g in ground_truth]),
        det_names=_names(results),
        det_heights=_joined([_heights(d) for d in results]),
        scores=_joined([d.scores for d in results]),
        overlap_image=pairs[0],
        overlap_bev=pairs[1],
        overlap_3d=pairs[2],
        similarity=pairs[3],
        has_alpha=bool((alpha > -10).all()),
    )


def boxes_upright(objects: KittiObjects) -> np.ndarray:
    """(M, 7) float64 boxes (x, y, z, l, w, h, yaw) in axes (camera x, camera z, camera -y).

    These axes are right-handed with the third one up, as the box ops want them; a turn about the camera's y,
    which points down, is a turn the other way. Sizes of -1, KITTI's word for unknown, become 0 and overlap
    with nothing.
    """
    h, w, l = np.maximum(objects.dimensions.reshape(-1, 3).astype(np.float64), 0).T
    x, y, z = objects.locations.reshape(-1, 3).astype(np.float64).T
    return np.stack([x, z, h / 2 - y, l, w, h, -objects.rotation_y.astype(np.float64)], axis=1)


def _overlaps(ground_truth: KittiObjects, results: KittiObjects) -> np.ndarray:
    """(4, pairs): image, BEV and 3-D overlap, similarity."""
    if not len(ground_truth) or not len(results):
        return np.zeros((4, 0))
    dont_care = _names([ground_truth]) == DONT_CARE
    gt_boxes = boxes_upright(ground_truth)
    gt_boxes[dont_care] = 0
    detections, targets = torch.from_numpy(boxes_upright(results)), torch.from_numpy(gt_boxes)
    turn = results.alpha[:, None].astype(np.float64) - ground_truth.alpha[None]
    matrices = (
        _image_overlap(results.boxes_image, ground_truth.boxes_image, dont_care),
        box_iou_bev(detections, targets).numpy(),
        box_iou_3d(detections, targets).numpy(),
        (1 + np.cos(turn)) / 2,
    )
    return np.stack([matrix.reshape(-1) for matrix in matrices])


def _image_overlap(detections: np.ndarray, targets: np.ndarray, dont_care: np.ndarray) -> np.ndarray:
    """(D, 4), (G, 4) left, top, right, bottom -> (D, G)."""
    a, b = detections[:, None].astype(np.float64), targets[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    whole = np.where(dont_care, area_a, area_a + area_b - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=(shared > 0) & (whole > 0))


def _heights(objects: KittiObjects) -> np.ndarray:
    return objects.boxes_image[:, 3] - objects.boxes_image[:, 1]


def _names(frames: Sequence[KittiObjects]) -> np.ndarray:
    return np.array([str(name).lower() for frame in frames for name in frame.names], dtype=np.str_)


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *columns])
