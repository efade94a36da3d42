"""The definitions of surfels on cases computed by hand."""

import math

import torch

from tests.oracles import surfels as oracle

PINHOLE = torch.tensor([50.0, 50.0, 10.0, 10.0])
UPRIGHT = torch.tensor([[1.0, 0.0, 0.0, 0.0]])


def project(means, quats, scales, opacity=1.0, orthographic=False):
    means = torch.tensor([means])
    args = (means, quats, torch.tensor([scales]), torch.tensor([opacity]), torch.eye(4), PINHOLE)
    return [x[0] for x in oracle.project(*args, 20, 20, 0.1, orthographic)]


def test_a_disc_that_faces_the_camera_is_a_circle():
    middle, slopes, depth, normal, reach = project([0.2, 0.0, 2.0], UPRIGHT, [0.1, 0.2])
    assert middle.tolist() == [15, 10] and depth == 2
    # One metre at 2 m is 25 px, so u = 1 is 2.5 px away.
    torch.testing.assert_close(slopes, torch.tensor([[0.4, 0.0], [0.0, 0.2], [0.0, 0.0]]))
    assert normal.tolist() == [0, 0, -1]
    widest = math.sqrt(2 * math.log(255))
    torch.testing.assert_close(reach, widest * torch.tensor([2.5, 5.0]))


def test_a_disc_tilted_by_45_degrees_rises_by_as_much_as_one_goes_along_it():
    half = math.radians(45) / 2
    about_y = torch.tensor([[math.cos(half), 0.0, math.sin(half), 0.0]])  # u goes to (1, 0, -1) / sqrt(2)
    middle, slopes, depth, _, _ = project([0.0, 0.0, 2.0], about_y, [0.1, 0.1])
    # The point at u = 2: x = z offset = 0.2 / sqrt(2).
    step = 0.2 / math.sqrt(2)
    pixel = 50 * step / (2 - step)
    u, v, w = slopes @ torch.tensor([pixel, 0.0]) + torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(torch.stack((u / w, v / w)), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(depth / w, torch.tensor(2 - step))


def test_parallel_rays_make_of_a_tilted_disc_an_ellipse_that_rises_evenly():
    half = math.radians(60) / 2
    about_y = torch.tensor([[math.cos(half), 0.0, math.sin(half), 0.0]])  # u goes to (1, 0, -sqrt(3)) / 2
    middle, slopes, depth, normal, reach = project([0.1, 0.0, 2.0], about_y, [0.1, 0.1], 1.0, True)
    assert middle.tolist() == [15, 10] and depth == 2
    # One metre is 50 px: u = 1 is 2.5 px to the right and 0.1 sqrt(3) / 2 m nearer, v = 1 is 5 px down.
    rise = -0.1 * math.sqrt(3) / 2 / 2.5 / 2
    torch.testing.assert_close(slopes, torch.tensor([[0.4, 0.0], [0.0, 0.2], [rise, 0.0]]))
    torch.testing.assert_close(normal, torch.tensor([-math.sqrt(3) / 2, 0, -0.5]))
    torch.testing.assert_close(reach, math.sqrt(2 * math.log(255)) * torch.tensor([2.5, 5.0]))


def test_two_splats_at_one_pixel():
    slopes = torch.tensor([[[0.5, 0.0], [0.0, 0.5], [0.1, 0.0]], [[0.5, 0.0], [0.0, 0.5], [0.0, 0.0]]])
    means2d, depths = torch.tensor([[-0.5, 0.5], [0.5, 0.5]]), torch.tensor([1.1, 2.0])
    opacities, features = torch.tensor([0.8, 0.5]), torch.tensor([[1.0], [10.0]])
    out = oracle.blend(
        means2d, slopes, depths, opacities, features, None, *[None] * 4, 1, 1, 0.01, 2.0, False
    )
    # One pixel beside its centre the first has w = 1.1, u = 0.5 / 1.1 and depth 1.
    first = 0.8 * math.exp(-((0.5 / 1.1) ** 2) / 2)
    second = 0.5 * (1 - first)
    want = [first + 10 * second, (1 - first) * 0.5, first + 2 * second, first + second / 2, 1.0]
    want.append(first * second * (1 - 1 / 2) ** 2)
    for got, value in zip(out[:6], want, strict=True):
        torch.testing.assert_close(got.flatten(), torch.tensor([value]))
    assert out[6].item() == 0


def test_the_low_pass_keeps_a_disc_seen_from_its_edge():
    slopes = torch.tensor([[[1e6, 0.0], [0.0, 1e6], [0.0, 0.0]]])
    out = oracle.blend(
        torch.tensor([[1.0, 0.5]]), slopes, torch.tensor([3.0]), torch.tensor([0.9]), torch.ones(1, 1),
        None, *[None] * 4, 2, 1, 0.01, 2.0, False,
    )  # fmt: skip
    torch.testing.assert_close(out[0][0, :, 0], torch.full((2,), 0.9 * math.exp(-0.25)))
    torch.testing.assert_close(out[4], torch.full((1, 2), 3.0))
