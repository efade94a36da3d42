"""Rotated boxes: overlaps, non-maximum suppression, points inside.

A box is (x, y, z, l, w, h, yaw): centre and sizes in metres, yaw in radians about +z from +x, any turn count.
"BEV" is the bird's-eye view, the box seen from above. Boxes that are not finite or have a negative size are a
ValueError naming the row; a size of zero is legal and overlaps with nothing. Everything is computed in
float64, relative to one of the two boxes, and rounded once. Overlaps are symmetric to the last bit; every
result is bitwise repeatable. No gradients.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor


def _check_boxes(name: str, boxes: Tensor) -> None:
    check_tensor(name, boxes, ("N", 7))
    bad = ~torch.isfinite(boxes).all(1) | (boxes[:, 3:6] < 0).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        values = ", ".join(f"{value:g}" for value in boxes[row].tolist())
        raise ValueError(
            f"{name}[{row}] is ({values}), expected finite (x, y, z, l, w, h, yaw) with sizes of at least 0"
        )


def _check_pair(a: Tensor, b: Tensor) -> None:
    _check_boxes("a", a)
    _check_boxes("b", b)
    check_same_device(("a", a), ("b", b))


def _check_points(points: Tensor, boxes: Tensor) -> None:
    check_tensor("points", points, ("P", 3))
    _check_boxes("boxes", boxes)
    check_same_device(("points", points), ("boxes", boxes))


def _double(boxes: Tensor) -> np.ndarray:
    return boxes.detach().to(torch.float64).contiguous().numpy()


def _point_array(points: Tensor) -> np.ndarray:
    points = points.detach()
    return (points if points.dtype in (torch.float32, torch.float64) else points.float()).contiguous().numpy()


@torch.library.custom_op("sparse3d::box_iou_bev", mutates_args=(), device_types="cpu")
def box_iou_bev(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union seen from above, all pairs: (N, 7), (M, 7) -> (N, M) in [0, 1]."""
    from sparse3d_ops.cpu import boxes as body

    _check_pair(a, b)
    wanted = torch.promote_types(a.dtype, b.dtype)
    out = torch.empty(len(a), len(b), dtype=wanted if wanted == torch.float32 else torch.float64)
    body.box_iou(_double(a), _double(b), False, out.numpy())
    return out.to(wanted)


@torch.library.custom_op("sparse3d::box_iou_3d", mutates_args=(), device_types="cpu")
def box_iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes, all pairs: (N, 7), (M, 7) -> (N, M) in [0, 1]."""
    from sparse3d_ops.cpu import boxes as body

    _check_pair(a, b)
    wanted = torch.promote_types(a.dtype, b.dtype)
    out = torch.empty(len(a), len(b), dtype=wanted if wanted == torch.float32 else torch.float64)
    body.box_iou(_double(a), _double(b), True, out.numpy())
    return out.to(wanted)


@torch.library.custom_op("sparse3d::box_iou_3d_aligned", mutates_args=(), device_types="cpu")
def box_iou_3d_aligned(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes row by row: (N, 7), (N, 7) -> (N,) in [0, 1]."""
    from sparse3d_ops.cpu import boxes as body

    _check_pair(a, b)
    check_tensor("b", b, (len(a), 7))
    out = torch.empty(len(a), dtype=torch.float64)
    body.box_iou_3d_aligned(_double(a), _double(b), out.numpy())
    return out.to(torch.promote_types(a.dtype, b.dtype))


@torch.library.custom_op("sparse3d::nms", mutates_args=(), device_types="cpu")
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that no better kept box overlaps by a BEV IoU above `iou_threshold`.

    (N, 7), (N,) finite, threshold in [0, 1] -> (K,) int64, highest score first; the lowest index wins ties.
    Classes are not looked at: call it once a class.
    """
    from sparse3d_ops.cpu import boxes as body

    _check_boxes("boxes", boxes)
    check_tensor("scores", scores, (len(boxes),))
    check_same_device(("boxes", boxes), ("scores", scores))
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a value in [0, 1]")
    if not bool(torch.isfinite(scores).all()):
        row = int((~torch.isfinite(scores)).nonzero()[0])
        raise ValueError(f"scores[{row}] is {float(scores[row])}, expected a finite value")
    order = torch.argsort(scores.detach(), descending=True, stable=True)
    kept = torch.empty(len(boxes), dtype=torch.int64)
    count = body.nms(_double(boxes), order.numpy(), float(iou_threshold), kept.numpy())
    return kept[:count].clone()


@torch.library.custom_op("sparse3d::points_in_boxes", mutates_args=(), device_types="cpu")
def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Index of the first box that holds each point: (P, 3), (M, 7) -> (P,) int64, -1 for none.

    Points on a face are inside, as exactly as cos and sin of the yaw allow; points that are not finite are in
    none.
    """
    from sparse3d_ops.cpu import boxes as body

    _check_points(points, boxes)
    out = torch.empty(len(points), dtype=torch.int64)
    body.points_in_boxes(_point_array(points), _double(boxes), out.numpy())
    return out


@torch.library.custom_op("sparse3d::points_per_box", mutates_args=(), device_types="cpu")
def points_per_box(points: Tensor, boxes: Tensor) -> Tensor:
    """Number of points in each box: (P, 3), (M, 7) -> (M,) int64. A point in two boxes counts in both."""
    from sparse3d_ops.cpu import boxes as body

    _check_points(points, boxes)
    out = torch.empty(len(boxes), dtype=torch.int64)
    body.points_per_box(_point_array(points), _double(boxes), out.numpy())
    return out


@box_iou_bev.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0], dtype=torch.promote_types(a.dtype, b.dtype))


@box_iou_3d.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0], dtype=torch.promote_types(a.dtype, b.dtype))


@box_iou_3d_aligned.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], dtype=torch.promote_types(a.dtype, b.dtype))


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@points_in_boxes.register_fake
def _(points: Tensor, boxes: Tensor) -> Tensor:
    return points.new_empty(points.shape[0], dtype=torch.int64)


@points_per_box.register_fake
def _(points: Tensor, boxes: Tensor) -> Tensor:
    return points.new_empty(boxes.shape[0], dtype=torch.int64)


def _run_on_host(op: Any) -> None:
    """Until these ops have GPU bodies, tensors on a GPU take the way through host memory and back."""

    def kernel(first: Tensor, second: Tensor, *rest: float) -> Tensor:
        check_same_device(("the first input", first), ("the second input", second))
        return op(first.detach().cpu(), second.detach().cpu(), *rest).to(first.device)

    op.register_kernel("cuda")(kernel)


for _op in (box_iou_bev, box_iou_3d, box_iou_3d_aligned, nms, points_in_boxes, points_per_box):
    _run_on_host(_op)
