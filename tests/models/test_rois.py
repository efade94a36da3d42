"""Geometry of RoIs: worked by hand, against the numpy geometry, and laws under motions."""

import math

import numpy as np
import pytest
import torch

from sparse3d.frames import Detections
from sparse3d.geometry import boxes as geometry
from sparse3d.models import rois
from sparse3d.models.rois import Rois, decode, encode, five_points, grid_points


def random_boxes(count: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    at = torch.randn(count, 3, generator=generator, dtype=dtype) * 10
    size = torch.rand(count, 3, generator=generator, dtype=dtype) * 4 + 0.3
    yaw = torch.randn(count, 1, generator=generator, dtype=dtype) * 3
    return torch.cat([at, size, yaw], dim=1)


def moved(boxes: torch.Tensor, yaw: float, shift=(3.0, -7.0, 1.0)) -> torch.Tensor:
    turned = geometry.rotate_boxes_z(boxes.numpy(), yaw)
    return torch.from_numpy(geometry.translate(turned, shift))


def test_grid_points_by_hand():
    # 4 long, 2 wide, facing +y: the local point (-1, -0.5, -0.75) lies at (0.5, -1, -0.75) from the centre.
    box = torch.tensor([[10.0, 20.0, 1.0, 4.0, 2.0, 3.0, math.pi / 2]])
    points = grid_points(box, 2)[0]
    assert points.shape == (8, 3)
    torch.testing.assert_close(points[0], torch.tensor([10.5, 19.0, 0.25]))
    torch.testing.assert_close(points[1], torch.tensor([10.5, 19.0, 1.75]))  # z runs fastest
    torch.testing.assert_close(points[2], torch.tensor([9.5, 19.0, 0.25]))  # then y
    torch.testing.assert_close(points[4], torch.tensor([10.5, 21.0, 0.25]))  # then x
    torch.testing.assert_close(grid_points(box, 1)[0, 0], box[0, :3])


def test_five_points_by_hand():
    box = torch.tensor([[10.0, 20.0, 1.0, 4.0, 2.0, 3.0, math.pi / 2]])
    want = [
        [10, 20, 1],
        [10, 22, 1],
        [10, 18, 1],
        [9, 20, 1],
        [11, 20, 1],
    ]  # centre, front, back, left, right
    torch.testing.assert_close(five_points(box)[0], torch.tensor(want).float())


def test_corners_are_those_of_the_numpy_geometry():
    boxes = random_boxes(20)
    np.testing.assert_allclose(rois.corners(boxes).numpy(), geometry.corners(boxes.numpy()), atol=1e-12)


@pytest.mark.parametrize("points_of", [lambda b: grid_points(b, 3), five_points, rois.corners])
def test_points_move_with_their_box(points_of):
    boxes = random_boxes(10)
    flat = points_of(boxes).reshape(-1, 3).numpy()
    want = geometry.translate(geometry.rotate_points_z(flat, 0.7), (3.0, -7.0, 1.0))
    got = points_of(moved(boxes, 0.7)).reshape(-1, 3)
    torch.testing.assert_close(got, torch.from_numpy(want))


def test_code_by_hand():
    # The RoI faces +y; the box lies 3 m ahead of it and 1 m to its left, 0.5 m higher, and faces +y + 0.2.
    roi = torch.tensor([[10.0, 20.0, 1.0, 3.0, 4.0, 2.0, math.pi / 2]])
    box = torch.tensor([[9.0, 23.0, 1.5, 6.0, 2.0, 2.0, math.pi / 2 + 0.2]])
    want = torch.tensor([[3 / 5, 1 / 5, 0.25, math.log(2), -math.log(2), 0.0, 0.2]])
    torch.testing.assert_close(encode(box, roi), want)
    # Facing back is the same code.
    torch.testing.assert_close(encode(box + torch.tensor([0, 0, 0, 0, 0, 0, math.pi]), roi), want)


def test_decoding_undoes_encoding_up_to_half_turns():
    boxes, regions = random_boxes(200), random_boxes(200, seed=1)
    code = encode(boxes, regions)
    assert (code[:, 6].abs() <= math.pi / 2).all()
    back = decode(code, regions)
    torch.testing.assert_close(back[:, :6], boxes[:, :6])
    assert ((back[:, 6] - boxes[:, 6]) / math.pi).frac().abs().sub(0.5).abs().sub(0.5).abs().max() < 1e-9
    torch.testing.assert_close(decode(torch.zeros_like(code), regions), regions)


def test_codes_do_not_see_where_the_world_begins_nor_how_it_is_turned():
    boxes, regions = random_boxes(50), random_boxes(50, seed=1)
    code = encode(boxes, regions)
    again = encode(moved(boxes, 2.1), moved(regions, 2.1))
    torch.testing.assert_close(again[:, :6], code[:, :6])
    turn = (again[:, 6] - code[:, 6]).abs()
    assert torch.minimum(turn, math.pi - turn).max() < 1e-9


def test_rois_of_frames_and_back():
    def found(count, labels):
        boxes = random_boxes(count, dtype=torch.float32)
        return Detections(boxes, torch.linspace(0.9, 0.1, count), torch.full((count,), labels))

    parts = [found(3, 1), found(0, 0), found(2, 5)]
    regions = Rois.of(parts, like=parts[0].boxes)
    assert regions.frame.tolist() == [0, 0, 0, 2, 2] and regions.labels.tolist() == [1, 1, 1, 5, 5]
    scores = torch.tensor([0.2, 0.9, 0.4, 0.1, 0.3])
    again = [regions.detections(regions.boxes, scores, frame) for frame in range(3)]
    assert [len(frame.boxes) for frame in again] == [3, 0, 2]
    assert again[0].scores.tolist() == pytest.approx([0.9, 0.4, 0.2])
    assert torch.equal(again[0].boxes, parts[0].boxes[[1, 2, 0]])
    assert again[0].velocities is None
    nobody = Rois.of([], like=scores)
    assert nobody.boxes.shape == (0, 7) and nobody.labels.dtype == nobody.frame.dtype == torch.int64
