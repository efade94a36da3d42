"""Time rotated boxes against torch, Open3D and spconv, where these are installed.

    python tools/bench_boxes.py [--boxes 100 1000 3000] [--points 10000 100000 1000000] [--threads 1 2]

    IoU             all pairs seen from above. torch: corners inside of each other and crossings of edges, in
                    order of their angle, as batched tensors; Open3D: ml.contrib.iou_bev_cpu
    NMS             greedy at 0.2. torch: its overlaps, then a loop over rows; Open3D: its overlaps, the same
                    loop; spconv: rotate_non_max_suppression_cpu with the overlaps of the upright hulls
    points          index of the box of each point, 50 boxes. torch: all pairs in float32; Open3D:
                    OrientedBoundingBox.get_point_indices_within_bounding_box box by box

Boxes are cars, cyclists and pedestrians scattered in clusters, ten proposals around each object, as a head
gives them before NMS.
"""

import argparse
import math

import machine
import numpy as np
import torch
from bench_voxelize import scan
from torch import Tensor

from sparse3d_ops.boxes import box_iou_bev, nms, points_in_boxes

THRESHOLD = 0.2
BOXES_OF_POINTS = 50
TORCH_PAIRS = 1_000_000  # at most: its polygons take about a kilobyte a pair


def proposals(count: int, extent: float = 50.0) -> tuple[Tensor, Tensor]:
    """(count, 7) boxes and scores: ten a cluster, in 2 * extent squared metres."""
    generator = torch.Generator().manual_seed(0)
    objects = -(-count // 10)
    kinds = torch.tensor([[3.9, 1.6, 1.6], [1.8, 0.6, 1.7], [0.8, 0.6, 1.7]])
    boxes = torch.cat(
        [
            (torch.rand(objects, 2, generator=generator) * 2 - 1) * extent,
            torch.full((objects, 1), -1.0),
            kinds[torch.randint(0, 3, (objects,), generator=generator)],
            (torch.rand(objects, 1, generator=generator) * 2 - 1) * math.pi,
        ],
        1,
    ).repeat_interleave(10, 0)[:count]
    noise = torch.randn(count, 7, generator=generator) * torch.tensor([0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1])
    boxes = boxes + noise
    boxes[:, 3:6] = boxes[:, 3:6].clamp(min=0.2)
    return boxes, torch.rand(count, generator=generator)


# ---- torch -------------------------------------------------------------------------------------------------


def corners(boxes: Tensor) -> Tensor:
    """(N, 4, 2), counter-clockwise."""
    half = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]) * boxes[:, None, 3:5]
    c, s = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    x, y = half.unbind(2)
    return torch.stack([c * x - s * y + boxes[:, :1], s * x + c * y + boxes[:, 1:2]], 2)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (P, 4, 2) lie in boxes (P, 7), pair by pair."""
    offset = points - boxes[:, None, :2]
    c, s = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    x, y = c * offset[..., 0] + s * offset[..., 1], c * offset[..., 1] - s * offset[..., 0]
    return (x.abs() <= boxes[:, None, 3] / 2 + 1e-5) & (y.abs() <= boxes[:, None, 4] / 2 + 1e-5)


def iou_by_torch(a: Tensor, b: Tensor) -> Tensor:
    """All pairs; polygons only for those whose circles meet."""
    radius_a, radius_b = a[:, 3:5].norm(dim=1) / 2, b[:, 3:5].norm(dim=1) / 2
    near = torch.cdist(a[:, :2], b[:, :2]) <= radius_a[:, None] + radius_b
    i, j = near.nonzero().unbind(1)
    first, second, p, q = a[i], b[j], corners(a)[i], corners(b)[j]
    along_p, along_q = p.roll(-1, 1) - p, q.roll(-1, 1) - q
    between = q[:, None] - p[:, :, None]  # (P, 4, 4, 2)
    cross = along_p[:, :, None, 0] * along_q[:, None, :, 1] - along_p[:, :, None, 1] * along_q[:, None, :, 0]
    safe = torch.where(cross == 0, 1, cross)
    t = (between[..., 0] * along_q[:, None, :, 1] - between[..., 1] * along_q[:, None, :, 0]) / safe
    u = (between[..., 0] * along_p[:, :, None, 1] - between[..., 1] * along_p[:, :, None, 0]) / safe
    met = (cross != 0) & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    crossings = p[:, :, None] + t[..., None] * along_p[:, :, None]
    vertices = torch.cat([crossings.flatten(1, 2), p, q], 1)  # (P, 24, 2)
    valid = torch.cat([met.flatten(1), inside(p, second), inside(q, first)], 1)
    count = valid.sum(1, keepdim=True)
    centre = (vertices * valid[..., None]).sum(1) / count.clamp(min=1)
    vertices = vertices - centre[:, None]
    angle = torch.atan2(vertices[..., 1], vertices[..., 0]).masked_fill(~valid, 10)
    order = angle.argsort(1)
    vertices = vertices.gather(1, order[..., None].expand(-1, -1, 2))
    # Places beyond the last vertex repeat the first one, so that they add no area.
    place = torch.arange(24).expand_as(order)
    vertices = torch.where((place < count)[..., None], vertices, vertices[:, :1])
    after = vertices.roll(-1, 1)
    shared = (vertices[..., 0] * after[..., 1] - vertices[..., 1] * after[..., 0]).sum(1).abs() / 2
    area_a, area_b = first[:, 3] * first[:, 4], second[:, 3] * second[:, 4]
    out = a.new_zeros(len(a), len(b))
    out[i, j] = torch.where(count[:, 0] > 2, shared / (area_a + area_b - shared), 0)
    return out


def greedy(overlaps: np.ndarray, scores: Tensor) -> np.ndarray:
    """Indices kept, from a matrix of overlaps."""
    order = scores.argsort(descending=True, stable=True).numpy()
    alive, kept = np.ones(len(order), bool), []
    for index in order:
        if alive[index]:
            kept.append(index)
            alive &= overlaps[index] <= THRESHOLD
    return np.asarray(kept)


def points_by_torch(points: Tensor, boxes: Tensor) -> Tensor:
    offset = points[:, None] - boxes[:, :3]
    c, s = boxes[:, 6].cos(), boxes[:, 6].sin()
    x, y = c * offset[..., 0] + s * offset[..., 1], c * offset[..., 1] - s * offset[..., 0]
    held = (x.abs() <= boxes[:, 3] / 2) & (y.abs() <= boxes[:, 4] / 2)
    held &= offset[..., 2].abs() <= boxes[:, 5] / 2
    return torch.where(held.any(1), held.int().argmax(1), -1)


# ---- Open3D and spconv -------------------------------------------------------------------------------------


def open3d_rows(boxes: Tensor) -> np.ndarray:
    """Rows (x, z, w, l, turn) of its overlaps seen from above: w lies along the first axis at turn 0."""
    return boxes[:, [0, 1, 3, 4, 6]].contiguous().numpy() * np.float32([1, 1, 1, 1, -1])


def points_by_open3d(open3d, points: Tensor, boxes: Tensor):
    cloud = open3d.utility.Vector3dVector(points.double().numpy())
    oriented = []
    for x, y, z, length, width, height, yaw in boxes.tolist():
        turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
        oriented.append(open3d.geometry.OrientedBoundingBox((x, y, z), turn, (length, width, height)))

    def run() -> np.ndarray:
        index = np.full(len(points), -1)
        for m in reversed(range(len(oriented))):
            index[oriented[m].get_point_indices_within_bounding_box(cloud)] = m
        return index

    return run


def nms_by_spconv(boxes: Tensor, scores: Tensor):
    from cumm import tensorview as tv  # pyright: ignore[reportMissingImports]
    from spconv.core_cc.csrc.utils.boxops import BoxOps  # pyright: ignore[reportMissingImports]

    def run() -> list[int]:
        polygons = corners(boxes)
        low, high = polygons.amin(1), polygons.amax(1)
        sides = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0)
        shared = sides.prod(2)
        areas = (high - low).prod(1)
        upright = (shared / (areas[:, None] + areas - shared)).contiguous()
        order = scores.argsort(descending=True, stable=True).int()
        tensors = [tv.from_numpy(t.contiguous().numpy()) for t in (polygons, order, upright)]
        return BoxOps.rotate_non_max_suppression_cpu(*tensors, THRESHOLD)

    return run


# ---- rows --------------------------------------------------------------------------------------------------


def compare_boxes(board: machine.Board, limits: machine.Limits, count: int) -> None:
    boxes, scores = proposals(count)
    overlaps: dict[str, machine.Call] = {"sparse3d": lambda: box_iou_bev(boxes, boxes)}
    kept: dict[str, machine.Call] = {"sparse3d": lambda: nms(boxes, scores, THRESHOLD)}
    want = box_iou_bev(boxes, boxes)
    if count * count <= 10 * TORCH_PAIRS:
        torch.testing.assert_close(iou_by_torch(boxes, boxes), want, rtol=1e-3, atol=1e-3)
        overlaps["torch"] = lambda: iou_by_torch(boxes, boxes)
        kept["torch"] = lambda: greedy(iou_by_torch(boxes, boxes).numpy(), scores)
    if contrib := machine.optional("open3d.ml.contrib"):
        rows = open3d_rows(boxes)
        np.testing.assert_allclose(contrib.iou_bev_cpu(rows, rows), want.numpy(), atol=1e-2)
        overlaps["Open3D"] = lambda: contrib.iou_bev_cpu(rows, rows)
        kept["Open3D"] = lambda: greedy(contrib.iou_bev_cpu(rows, rows), scores)
    if machine.optional("spconv"):
        kept["spconv"] = nms_by_spconv(boxes, scores)
    work = machine.Work(count * 56 + count * count * 4)
    board.row("IoU", f"{count} x {count}", limits, work, overlaps)
    size = f"{count} boxes, {len(nms(boxes, scores, THRESHOLD))} kept"
    board.row("NMS", size, limits, machine.Work(0), kept)


def compare_points(board: machine.Board, limits: machine.Limits, count: int) -> None:
    points, boxes = scan(count)[0][:, :3].contiguous(), proposals(BOXES_OF_POINTS * 10)[0][::10]
    contestants: dict[str, machine.Call] = {"sparse3d": lambda: points_in_boxes(points, boxes)}
    contestants["torch"] = lambda: points_by_torch(points, boxes)
    if open3d := machine.optional("open3d"):
        contestants["Open3D"] = points_by_open3d(open3d, points, boxes)
    board.row("points", f"{count} x {len(boxes)}", limits, machine.Work(count * (12 + 8)), contestants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--points", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    machine.add_arguments(parser)
    args = parser.parse_args()
    board = machine.Board("boxes, float32", ["torch", "Open3D", "spconv"], args.repeats)
    for limits in machine.each_limit(args.threads):
        for count in args.boxes:
            compare_boxes(board, limits, count)
        for count in args.points:
            compare_points(board, limits, count)
    board.print()


if __name__ == "__main__":
    main()
