"""The box ops under the law suite."""

import math

import torch

from sparse3d_ops import boxes
from tests.ops.laws import OpLaw
from tests.oracles import boxes as oracle


def random_boxes(count, extent=6.0, dtype=torch.float64):
    """Boxes of a car's size, crowded into `extent` metres so that most of them overlap with something."""
    low = torch.tensor([0.0, 0.0, -1.0, 0.5, 0.5, 0.5, -math.pi])
    high = torch.tensor([extent, extent, 1.0, 4.5, 2.5, 2.0, math.pi])
    return (low + (high - low) * torch.rand(count, 7)).to(dtype)


def _rows(*rows):
    return lambda dtype, device: torch.tensor(rows, dtype=dtype, device=device).reshape(-1, 7)


CAR = [3.0, -2.0, 0.5, 4.0, 2.0, 1.5, 0.7]
QUARTER = math.pi / 2
# (box, the boxes that it meets): each on a border of the clipping.
MEETINGS = {
    "single": (_rows(CAR), _rows([3.5, -2.2, 0.6, 3.9, 1.8, 1.6, 0.8])),
    "duplicate": (_rows(CAR, CAR), _rows(CAR, CAR)),
    "border_touching": (
        _rows([0, 0, 0, 2, 2, 2, 0], [0, 0, 0, 2, 2, 2, QUARTER]),
        _rows([2, 0, 0, 2, 2, 2, 0], [2, 2, 0, 2, 2, 2, 0], [1, 0, 0, 2, 2, 2, 0]),
    ),
    "border_shared_edges": (
        _rows([0, 0, 0, 4, 2, 2, 0], [0, 0, 0, 2, 4, 1, QUARTER]),
        _rows([1, 0, 0, 2, 2, 2, 0], [0, 0.5, 0.5, 4, 1, 1, 0]),
    ),
    "contained": (
        _rows([0, 0, 0, 8, 8, 8, 0.3]),
        _rows([0.5, 0.2, 1, 2, 1, 1, -1.1], [0, 0, 0, 8, 8, 4, 0.3]),
    ),
    "zero_size": (
        _rows([0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 4, 0, 2, 0.5], [0, 0, 0, 4, 2, 0, 0]),
        _rows([0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 4, 2, 2, 0.1], [0, 0, 0, 4, 2, 0, 0]),
    ),
    "quarter_turns": (_rows(CAR), _rows(*[CAR[:6] + [CAR[6] + k * QUARTER] for k in range(-4, 5)])),
    "tiny_angles": (
        _rows(CAR),
        _rows(*[CAR[:6] + [CAR[6] + angle] for angle in (1e-3, 1e-6, -1e-6, 1e-9, -1e-12)]),
    ),
    "negative_and_far": (
        _rows([-40000.0, 70000.0, -300.0, 4.5, 2.0, 1.5, 3.0]),
        _rows([-40000.5, 70000.25, -300.25, 4.5, 2.0, 1.5, -3.0], [-39999, 70001, -300, 4, 2, 1.5, 9.5]),
    ),
    "crowded": (
        lambda dtype, device: random_boxes(6, 6, dtype).to(device),
        lambda dtype, device: random_boxes(7, 6, dtype).to(device),
    ),
}


def _pairs():
    cases = {
        name: lambda dtype, device, ab=ab: (ab[0](dtype, device), ab[1](dtype, device))
        for name, ab in MEETINGS.items()
    }
    cases["empty"] = lambda dtype, device: (_rows()(dtype, device), _rows(CAR)(dtype, device))
    cases["empty_second"] = lambda dtype, device: (_rows(CAR)(dtype, device), _rows()(dtype, device))
    return cases


def _aligned():
    def make(ab):
        def case(dtype, device):
            a, b = ab[0](dtype, device), ab[1](dtype, device)
            rows = max(len(a), len(b))
            return a[torch.arange(rows) % len(a)], b[torch.arange(rows) % len(b)]

        return case

    cases = {name: make(ab) for name, ab in MEETINGS.items()}
    cases["empty"] = lambda dtype, device: (_rows()(dtype, device), _rows()(dtype, device))
    return cases


def _scored(count, threshold, ties=False):
    def case(dtype, device):
        scores = torch.rand(count)
        scores = (scores * 4).floor() / 4 if ties else scores
        return random_boxes(count, 12, dtype).to(device), scores.to(dtype).to(device), threshold

    return case


NMS = {
    "empty": lambda dtype, device: (_rows()(dtype, device), torch.zeros(0, dtype=dtype, device=device), 0.5),
    "single": _scored(1, 0.0),
    "duplicate": lambda dtype, device: (
        _rows(CAR, CAR, CAR)(dtype, device),
        torch.tensor([0.5, 0.7, 0.7], dtype=dtype, device=device),
        0.9,
    ),
    "crowded": _scored(24, 0.2),
    "ties": _scored(20, 0.1, ties=True),
    "threshold_zero": _scored(16, 0.0),
    "threshold_one": _scored(8, 1.0),
}


def _points(count, boxes_count):
    def case(dtype, device):
        points = torch.rand(count, 3, dtype=torch.float64) * torch.tensor([8.0, 8.0, 4.0]) - torch.tensor(
            [1.0, 1.0, 2.0]
        )
        return points.to(dtype).to(device), random_boxes(boxes_count, 6, dtype).to(device)

    return case


def _border_points(dtype, device):
    axis_parallel = [[1.0, 2.0, 0.0, 4.0, 2.0, 2.0, 0.0], [-3.0, -3.0, -1.0, 2.0, 2.0, 2.0, 0.0]]
    points = [
        [3, 3, 1],
        [3, 2, 0],
        [-1, 1, -1],
        [3.5, 2, 0],
        [-4, -4, -2],
        [-2, -3, 0],
        [-2, -3, 0.5],
        [math.nan, 2, 0],
    ]
    return (
        torch.tensor(points, dtype=dtype, device=device),
        torch.tensor(axis_parallel, dtype=dtype, device=device),
    )


POINTS = {
    "empty": lambda dtype, device: (torch.zeros(0, 3, dtype=dtype, device=device), _rows(CAR)(dtype, device)),
    "without_boxes": lambda dtype, device: (
        torch.zeros(3, 3, dtype=dtype, device=device),
        _rows()(dtype, device),
    ),
    "single": _points(1, 1),
    "duplicate": lambda dtype, device: (
        torch.tensor([CAR[:3], CAR[:3]], dtype=dtype, device=device),
        _rows(CAR, CAR)(dtype, device),
    ),
    "border_and_negative": _border_points,
    "crowded": _points(200, 9),
}

LAWS = [
    OpLaw(boxes.box_iou_bev, oracle.box_iou_bev, _pairs(), tolerance=1e-6),
    OpLaw(boxes.box_iou_3d, oracle.box_iou_3d, _pairs(), tolerance=1e-6),
    OpLaw(boxes.box_iou_3d_aligned, oracle.box_iou_3d_aligned, _aligned(), tolerance=1e-6),
    OpLaw(boxes.nms, oracle.nms, NMS),
    OpLaw(boxes.points_in_boxes, oracle.points_in_boxes, POINTS),
    OpLaw(boxes.points_per_box, oracle.points_per_box, POINTS),
]
