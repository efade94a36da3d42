"""Rotated boxes: overlaps, non-maximum suppression, points inside.

A box is (x, y, z, l, w, h, yaw): centre and sizes in metres, yaw in radians about +z from +x, any turn count.
"BEV" is the bird's-eye view, the box seen from above. Boxes that are not finite or have a negative size are a
ValueError naming the row; a size of zero is legal and overlaps with nothing. Everything is computed in
float64, relative to one of the two boxes, and rounded once. Overlaps are symmetric to the last bit; every
result is bitwise repeatable. No gradients. On a GPU every op waits for the check of the boxes, and overlaps
may differ from those of a CPU in the last bits of float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor, working


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


def _room_for_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Checks, and the (N, M) output of a body: float32 where that is wanted, otherwise float64."""
    _check_pair(a, b)
    single = torch.promote_types(a.dtype, b.dtype) == torch.float32
    return a.new_empty(len(a), len(b), dtype=torch.float32 if single else torch.float64)


def _check_points(points: Tensor, boxes: Tensor) -> None:
    check_tensor("points", points, ("P", 3))
    _check_boxes("boxes", boxes)
    check_same_device(("points", points), ("boxes", boxes))


def _check_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> None:
    _check_boxes("boxes", boxes)
    check_tensor("scores", scores, (len(boxes),))
    check_same_device(("boxes", boxes), ("scores", scores))
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a value in [0, 1]")
    if not bool(torch.isfinite(scores).all()):
        row = int((~torch.isfinite(scores)).nonzero()[0])
        raise ValueError(f"scores[{row}] is {float(scores[row])}, expected a finite value")


def _double(boxes: Tensor) -> Tensor:
    return boxes.detach().to(torch.float64).contiguous()


@torch.library.custom_op("sparse3d::box_iou_bev", mutates_args=(), device_types="cpu")
def box_iou_bev(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union seen from above, all pairs: (N, 7), (M, 7) -> (N, M) in [0, 1]."""
    from sparse3d_ops.cpu import boxes as body

    out = _room_for_pairs(a, b)
    body.box_iou(_double(a).numpy(), _double(b).numpy(), False, out.numpy())
    return out.to(torch.promote_types(a.dtype, b.dtype))


@torch.library.custom_op("sparse3d::box_iou_3d", mutates_args=(), device_types="cpu")
def box_iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes, all pairs: (N, 7), (M, 7) -> (N, M) in [0, 1]."""
    from sparse3d_ops.cpu import boxes as body

    out = _room_for_pairs(a, b)
    body.box_iou(_double(a).numpy(), _double(b).numpy(), True, out.numpy())
    return out.to(torch.promote_types(a.dtype, b.dtype))


@torch.library.custom_op("sparse3d::box_iou_3d_aligned", mutates_args=(), device_types="cpu")
def box_iou_3d_aligned(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes row by row: (N, 7), (N, 7) -> (N,) in [0, 1]."""
    from sparse3d_ops.cpu import boxes as body

    _check_pair(a, b)
    check_tensor("b", b, (len(a), 7))
    out = torch.empty(len(a), dtype=torch.float64)
    body.box_iou_3d_aligned(_double(a).numpy(), _double(b).numpy(), out.numpy())
    return out.to(torch.promote_types(a.dtype, b.dtype))


@torch.library.custom_op("sparse3d::nms", mutates_args=(), device_types="cpu")
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that no better kept box overlaps by a BEV IoU above `iou_threshold`.

    (N, 7), (N,) finite, threshold in [0, 1] -> (K,) int64, highest score first; the lowest index wins ties.
    Classes are not looked at: call it once a class.
    """
    from sparse3d_ops.cpu import boxes as body

    _check_nms(boxes, scores, iou_threshold)
    order = torch.argsort(scores.detach(), descending=True, stable=True)
    kept = torch.empty(len(boxes), dtype=torch.int64)
    count = body.nms(_double(boxes).numpy(), order.numpy(), float(iou_threshold), kept.numpy())
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
    body.points_in_boxes(working(points).numpy(), _double(boxes).numpy(), out.numpy())
    return out


@torch.library.custom_op("sparse3d::points_per_box", mutates_args=(), device_types="cpu")
def points_per_box(points: Tensor, boxes: Tensor) -> Tensor:
    """Number of points in each box: (P, 3), (M, 7) -> (M,) int64. A point in two boxes counts in both."""
    from sparse3d_ops.cpu import boxes as body

    _check_points(points, boxes)
    out = torch.empty(len(boxes), dtype=torch.int64)
    body.points_per_box(working(points).numpy(), _double(boxes).numpy(), out.numpy())
    return out


def _cuda_pairs(body: Callable, a: Tensor, b: Tensor) -> Tensor:
    out = _room_for_pairs(a, b)
    body(_double(a), _double(b), out)
    return out.to(torch.promote_types(a.dtype, b.dtype))


@box_iou_bev.register_kernel("cuda")
def _(a: Tensor, b: Tensor) -> Tensor:
    from sparse3d_ops.gpu import boxes as body

    return _cuda_pairs(body.box_iou_bev, a, b)


@box_iou_3d.register_kernel("cuda")
def _(a: Tensor, b: Tensor) -> Tensor:
    from sparse3d_ops.gpu import boxes as body

    return _cuda_pairs(body.box_iou_3d, a, b)


@box_iou_3d_aligned.register_kernel("cuda")
def _(a: Tensor, b: Tensor) -> Tensor:
    from sparse3d_ops.gpu import boxes as body

    _check_pair(a, b)
    check_tensor("b", b, (len(a), 7))
    out = a.new_empty(len(a), dtype=torch.float64)
    body.box_iou_3d_aligned(_double(a), _double(b), out)
    return out.to(torch.promote_types(a.dtype, b.dtype))


@nms.register_kernel("cuda")
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    from sparse3d_ops.gpu import boxes as body

    _check_nms(boxes, scores, iou_threshold)
    order = torch.argsort(scores.detach(), descending=True, stable=True)
    threshold = boxes.new_full((1,), iou_threshold, dtype=torch.float64)
    kept = boxes.new_empty(len(boxes), dtype=torch.int32)
    body.nms(_double(boxes)[order], threshold, kept)
    return order[kept != 0]


@points_in_boxes.register_kernel("cuda")
def _(points: Tensor, boxes: Tensor) -> Tensor:
    from sparse3d_ops.gpu import boxes as body

    _check_points(points, boxes)
    out = points.new_empty(len(points), dtype=torch.int64)
    body.points_in_boxes(working(points), _double(boxes), out)
    return out


@points_per_box.register_kernel("cuda")
def _(points: Tensor, boxes: Tensor) -> Tensor:
    from sparse3d_ops.gpu import boxes as body

    _check_points(points, boxes)
    out = points.new_empty(len(boxes), dtype=torch.int64)
    body.points_per_box(working(points), _double(boxes), out)
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
