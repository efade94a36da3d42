"""The definitions of splatting on cases computed by hand."""

import math

import torch

from tests.oracles import splat_blend, splat_projection, splat_tiles

D = torch.float64
EYE, NO_TURN = torch.eye(4, dtype=D), torch.tensor([[1.0, 0, 0, 0]], dtype=D)
LENS = torch.tensor([100.0, 50, 20, 10], dtype=D)


def project(mean, scale, opacity=1.0, quat=NO_TURN, orthographic=False, size=(40, 20), blur=0.5):
    splat = torch.tensor([mean], dtype=D), quat, torch.tensor([scale], dtype=D)
    return splat_projection.project(
        *splat, torch.tensor([opacity], dtype=D), EYE, LENS, *size, 0.1, blur, orthographic
    )


def test_a_round_splat_on_the_axis():
    # At 2 m a metre is 50 px across and 25 px down: variances (50 * 0.02)^2 + 0.5 = 1.5 and 0.25 + 0.5.
    means2d, conics, depths, reach, share = project([0, 0, 2.0], [0.02, 0.02, 0.02])
    torch.testing.assert_close(means2d, torch.tensor([[20.0, 10]], dtype=D))
    torch.testing.assert_close(conics, torch.tensor([[1 / 1.5, 0, 1 / 0.75]], dtype=D))
    assert depths.tolist() == [2]
    widest = math.sqrt(2 * math.log(255))
    torch.testing.assert_close(reach, widest * torch.tensor([[1.5, 0.75]], dtype=D).sqrt())
    torch.testing.assert_close(share, torch.tensor([math.sqrt(0.25 / (1.5 * 0.75))], dtype=D))


def test_depth_spreads_a_splat_that_is_not_on_the_axis():
    # x / z = 0.1 is not beyond the border: du/dz = -100 * 0.1 / 2 = -5 px a metre, and a splat that is only
    # deep, 0.2 m, is 1 px wide and, as y = 0, nothing high.
    _, conics, _, _, share = project([0.2, 0, 2.0], [0, 0, 0.2])
    torch.testing.assert_close(conics, torch.tensor([[1 / 1.5, 0, 1 / 0.5]], dtype=D))
    assert share.tolist() == [0]


def test_beyond_the_border_the_slope_is_that_of_the_border():
    # 40 px at 100 px: slopes in [-0.2, 0.2] are in the image, its border ends at 0.2 + 0.3 * 0.2 = 0.26.
    _, conics, _, reach, _ = project([1.0, 0, 2.0], [0, 0, 1.0])
    torch.testing.assert_close(1 / conics[0, 0], torch.tensor((50 * 0.26) ** 2 + 0.5, dtype=D))
    assert reach[0, 0] > 30  # or it would not reach the image, from 70 px on


def test_a_quarter_turn_changes_the_axes():
    half = math.sqrt(0.5)
    turned = torch.tensor([[half, 0, 0, half]], dtype=D)  # about z
    conics = project([0, 0, 2.0], [0.02, 0.04, 0.01], quat=turned)[1]
    torch.testing.assert_close(conics, torch.tensor([[1 / 4.5, 0, 1 / 0.75]], dtype=D))


def test_an_orthographic_camera_sees_metres():
    means2d, conics, *_ = project([0.1, 0.1, 7.0], [0.01, 0.02, 9.0], orthographic=True)
    torch.testing.assert_close(means2d, torch.tensor([[30.0, 15]], dtype=D))
    torch.testing.assert_close(conics, torch.tensor([[1 / 1.5, 0, 1 / 1.5]], dtype=D))


def test_what_is_not_seen_is_zero():
    cases = [([0, 0, 0.05], 1.0), ([0, 0, -2], 1.0), ([0, 0, 2], 1 / 255), ([2, 0, 2], 1.0), ([0, 2, 2], 1.0)]
    for mean, opacity in [*cases, ([math.nan, 0, 2], 1.0), ([0, 0, 2], math.nan)]:
        assert not any(x.any() for x in project(mean, [0.01] * 3, opacity))


def test_lists_of_two_by_two_tiles():
    means2d = torch.tensor([[8.0, 8], [16, 16], [24, 24], [8, 8], [20, 8]])
    reach = torch.tensor([[2.0, 2], [2, 2], [8, 4], [2, 2], [0, 0]])
    starts, splats, slots, offsets = splat_tiles.tile_lists(
        means2d, reach, torch.tensor([2.0, 3, 1, 2, 1]), 32, 20
    )
    # Splat 2 begins in tile (1, 1) with its left border on the boundary, and what is at one depth stays in
    # order.
    assert splats.tolist() == [0, 3, 1, 1, 1, 2, 1]
    assert starts.tolist() == [0, 3, 4, 5, 7]
    assert offsets.tolist() == [0, 1, 5, 6, 7, 7]
    assert slots.tolist() == [0, 6, 1, 2, 3, 5, 4]


ONE_TILE = torch.tensor([0, 2]), torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0, 1])


def two(features, opacities=(0.5, 0.5)):
    means2d, conics = torch.tensor([[0.5, 0.5], [1.5, 0.5]]).to(D), torch.tensor([[2.0, 0, 2]] * 2).to(D)
    splats = means2d, conics, torch.tensor(opacities, dtype=D), torch.tensor(features, dtype=D)
    return splat_blend.blend(*splats, torch.zeros(0, 2, dtype=D), *ONE_TILE, torch.arange(3), 2, 1)


def test_two_splats_a_pixel_apart():
    # At a pixel's distance exp(-q / 2) = exp(-1).
    near, far = 0.5, 0.5 * math.exp(-1)
    image, through = two([[8.0], [4.0]])
    want = [[8 * near + 4 * (1 - near) * far], [8 * far + 4 * (1 - far) * near]]
    torch.testing.assert_close(image[0], torch.tensor(want, dtype=D))
    torch.testing.assert_close(through, torch.full((1, 2), (1 - near) * (1 - far), dtype=D))


def test_alpha_is_held_down_and_small_alpha_does_not_count():
    image, through = two([[1.0], [1.0]], (2.0, 0.01))
    torch.testing.assert_close(through[0, 0], torch.tensor(0.001, dtype=D))  # 0.01 exp(-1) < 1 / 255
    torch.testing.assert_close(image[0, 0, 0], torch.tensor(0.999, dtype=D))


def test_gradients_of_one_splat_at_two_pixels():
    means2d, conics = torch.tensor([[0.5, 0.5]], dtype=D), torch.tensor([[2.0, 0, 2]], dtype=D)
    lists = torch.tensor([0, 1]), torch.zeros(1, dtype=torch.int32), torch.zeros(1).long(), torch.arange(2)
    opacities, features = torch.tensor([0.5], dtype=D), torch.tensor([[3.0]], dtype=D)
    images = torch.zeros(1, 2, 1, dtype=D), torch.zeros(1, 2, dtype=D)
    grads = torch.tensor([[[1.0], [-1.0]]], dtype=D), torch.zeros(1, 2, dtype=D)
    found = splat_blend.blend_backward(means2d, conics, opacities, features, *lists, *images, *grads, True)
    e = math.exp(-1)
    # The image is 3 * 0.5 * exp(-dx^2): the derivative in the mean at dx = 1 is 3 * 0.5 * 2 e.
    wants = [[-3 * e, 0]], [[1.5 * e / 2, 0, 0]], [3 * (1 - e)], [[0.5 * (1 - e)]], [[3 * e, 0]]
    for got, want in zip(found, wants, strict=True):
        torch.testing.assert_close(got, torch.tensor(want, dtype=D))
