"""Laws of blending splats, and of the way from Gaussians to an image."""

import numba
import pytest
import torch

from sparse3d_ops.splat_blend import Blended, blend_backward, blend_splats
from sparse3d_ops.splat_projection import project_gaussians
from sparse3d_ops.splat_tiles import Tiles, list_splats
from tests.ops import bodies
from tests.ops.cases_splat_blend import ellipses
from tests.ops.splats import SIZE, Scene, draw, scene
from tests.oracles import splat_projection as oracle

D = torch.float64


def flat(count=20, size=SIZE, channels=3, dtype=D, seed=0):
    """Ellipses in the image: means2d, conics, opacities, features, tiles."""
    torch.manual_seed(seed)
    place, conics, opacities, reach, depths = ellipses(count, *size, dtype)
    tiles = list_splats(place, reach, depths, size)
    return place, conics, opacities, torch.rand(count, channels, dtype=dtype), tiles


def assert_same(got, want, **kwargs):
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_the_image_of_one_gaussian_is_its_opacity_times_the_exponential(dtype):
    one = scene(1, 1, dtype)
    one.means[:], one.features[:], one.opacities[:] = 0, 1, 0.8
    projected = project_gaussians(*one[:4], one.pose, one.lens, SIZE)
    image, through = draw(one)
    shown = 0
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            want = oracle.image(projected.means2d, projected.conics, one.opacities, x + 0.5, y + 0.5)
            want = want if want >= 1 / 255 else 0
            assert abs(float(image[y, x, 0]) - want) < 1e-5
            assert abs(float(through[y, x]) - (1 - want)) < 1e-5
            shown += want > 0
    assert shown > 50


def test_weights_and_what_gets_through_are_everything():
    s = scene(40, 1)
    image, through = draw(s._replace(features=torch.ones_like(s.features)))
    torch.testing.assert_close(image[..., 0] + through, torch.ones(SIZE[::-1], dtype=D))
    assert 0.001 < through.min() < 0.9


def test_a_background_shows_where_nothing_else_does_and_gets_its_gradient():
    s, background = scene(12), torch.rand(3, dtype=D, requires_grad=True)
    image, through = draw(s)
    seen = image + through[..., None] * background
    far = s._replace(means=s.means + torch.tensor([0, 0, -100.0]))
    nothing = draw(far)
    assert torch.equal(nothing.transmittance, torch.ones(SIZE[::-1], dtype=D)) and not nothing.image.any()
    (slope,) = torch.autograd.grad(seen.sum(), background)
    torch.testing.assert_close(slope, through.sum().expand(3))


def test_the_order_of_rows_does_not_matter_and_the_order_of_depths_does():
    s = scene(24)
    order = torch.randperm(24)
    mixed = s._replace(**{name: getattr(s, name)[order] for name in s._fields[:5]})
    assert_same(draw(mixed), draw(s))
    # Two splats at one place, one of them opaque: the nearer one is seen.
    for near, far in ((0, 1), (1, 0)):
        two = scene(2)
        two.means[:] = 0
        two.means[far, 2] = 0.2
        two.opacities[:], two.scales[:] = 0.999, 0.5
        two.features[:] = torch.eye(2, 3, dtype=D)
        middle = draw(two).image[SIZE[1] // 2, SIZE[0] // 2]
        assert middle[near] > 0.9 > 0.1 > middle[far]


def test_of_two_splats_at_one_depth_the_lower_row_is_in_front():
    two = scene(2)
    two.means[:] = 0
    two.opacities[:], two.scales[:] = 0.999, 0.5
    two.features[:] = torch.eye(2, 3, dtype=D)
    assert draw(two).image[SIZE[1] // 2, SIZE[0] // 2, 0] > 0.9


def test_what_cannot_be_seen_changes_nothing():
    s = scene(20)
    rows = slice(5, 13)
    seen = [x for x in range(20) if x not in range(5, 13)]
    want = draw(s._replace(**{name: getattr(s, name)[seen] for name in s._fields[:5]}))
    s.means[5, 2], s.means[6, 0], s.means[7, 1] = -9, 9, torch.nan
    s.opacities[8], s.opacities[9] = 0, torch.nan
    s.quats[10], s.scales[11, 0], s.scales[12] = 0, torch.nan, torch.inf
    got = [x.requires_grad_() for x in s[:5]]
    found = draw(Scene(*got, s.pose, s.lens))
    assert all(torch.equal(g, w) for g, w in zip(found, want, strict=True))
    grads = torch.autograd.grad(found.image.sum() + found.transmittance.square().sum(), got)
    for grad in grads:
        assert torch.isfinite(grad).all() and not grad[rows].any() and grad.any()


def test_a_crop_is_the_image_of_a_camera_with_a_moved_centre():
    s = scene(40, size=(70, 45))
    whole = draw(s, (70, 45))
    left, top, size = 13, 6, (33, 30)
    moved = s._replace(lens=s.lens - torch.tensor([0, 0, left, top]))
    area = slice(top, top + size[1]), slice(left, left + size[0])
    # What is held at the border of one image need not be held at that of the other: none is, here.
    small = s._replace(scales=s.scales * 0.3)
    whole, moved = draw(small, (70, 45)), moved._replace(scales=moved.scales * 0.3)
    assert_same(draw(moved, size), (x[area] for x in whole))


def test_gradients_of_a_crop_are_those_of_the_crop_of_the_image():
    left, top, size = 5, 3, (20, 17)
    place, conics, opacities, features, _ = flat()
    weight = torch.randn(size[1], size[0], 3, dtype=D)

    def slopes(size, shift, area):
        inputs = [x.clone().requires_grad_() for x in (place, conics, opacities, features)]
        reach = torch.full_like(place, 60)
        middle = inputs[0] - torch.tensor(shift)
        tiles = list_splats(middle.detach(), reach, torch.arange(1.0, 21).double(), size)
        image = blend_splats(middle, *inputs[1:], tiles, size).image[area]
        return torch.autograd.grad((image * weight).sum(), inputs)

    area = slice(top, top + size[1]), slice(left, left + size[0])
    want = slopes(SIZE, (0, 0), area)
    assert_same(slopes(size, (left, top), (slice(None), slice(None))), want)


def test_light_stops_where_almost_none_is_left():
    count = 9
    place = torch.full((count, 2), 8.5).double()
    conics = torch.tensor([[1e-4, 0, 1e-4]]).double().repeat(count, 1)
    features = torch.eye(count).double()
    tiles = list_splats(place, torch.full_like(place, 99), torch.arange(1.0, count + 1).double(), (16, 16))
    image, through = blend_splats(
        place, conics, torch.full((count,), 0.9).double(), features, tiles, (16, 16)
    )
    # 0.1^4 is not above 1e-4 in any type, so the fourth, or the fifth with rounding up, is the last.
    middle = image[8, 8]
    torch.testing.assert_close(middle[:4], torch.tensor([0.9, 0.09, 0.009, 0.0009]).double())
    assert not middle[5:].any() and through[8, 8] <= 1.0001e-4


def test_absolute_gradients_are_the_sum_of_those_of_single_pixels():
    size = 9, 3
    place, conics, opacities, features, tiles = flat(6, size)
    weights = torch.randn(3, 9, 3, dtype=D)

    def slopes(weights):
        middle = place.clone().requires_grad_()
        absolute = torch.zeros_like(place, requires_grad=True)
        image, through = blend_splats(middle, conics, opacities, features, tiles, size, absolute)
        score = (image * weights).sum() + (through * weights[..., 0]).sum()
        return torch.autograd.grad(score, (middle, absolute))

    middle, absolute = slopes(weights)
    each = 0
    for y in range(3):
        for x in range(9):
            alone = torch.zeros_like(weights)
            alone[y, x] = weights[y, x]
            one, one_absolute = slopes(alone)
            torch.testing.assert_close(one.abs(), one_absolute)
            each = each + one.abs()
    torch.testing.assert_close(absolute, each)
    assert (absolute >= middle.abs() - 1e-12).all() and absolute.any()


def test_without_its_tensor_there_is_no_absolute_gradient_and_the_others_are_the_same():
    place, conics, opacities, features, tiles = flat()
    found = []
    for absolute in (None, torch.zeros_like(place), torch.zeros_like(place, requires_grad=True)):
        middle = place.clone().requires_grad_()
        blend_splats(middle, conics, opacities, features, tiles, SIZE, absolute).image.sum().backward()
        found.append(middle.grad)
        assert absolute is None or (absolute.grad is not None) == absolute.requires_grad
    assert found[0].any() and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_antialiased_splats_keep_their_mass_however_small():
    s = scene(1, 1)
    s.means[:], s.opacities[:], s.features[:] = 0, 0.5, 1
    for scale in (3e-2, 5e-2, 1e-1):  # of 0.4 to 1.5 px at 3 m and 44 px a metre
        small = s._replace(scales=torch.full((1, 3), scale, dtype=D))
        sharp = float(draw(small, antialiased=True).image.sum())
        pixels = SIZE[0] * 1.2 / 3 * scale
        mass = 0.5 * 2 * torch.pi * pixels**2 * 0.9
        # What is below 1 / 255 is left out: of a Gaussian with a peak of p that is 1 / (255 p) of its mass.
        share = project_gaussians(*small[:4], s.pose, s.lens, SIZE).compensation
        assert abs(sharp / mass - (1 - 1 / (255 * 0.5 * float(share)))) < 0.05
    classic = draw(s._replace(scales=torch.full((1, 3), 3e-3, dtype=D))).image.sum()
    assert float(classic) > 0.5  # the blur alone has a mass of 0.5 * 2 pi * 0.3


def test_channels_are_blended_one_by_one():
    s = scene(12, 64)
    whole = draw(s)
    for part in (slice(0, 1), slice(7, 40), slice(63, 64)):
        alone = draw(s._replace(features=s.features[:, part]))
        assert_same(alone, Blended(whole.image[..., part], whole.transmittance))


def test_gradients_from_the_parameters_and_the_camera_equal_finite_differences():
    s = scene(5, 2, size=(18, 17))
    inputs = [x.requires_grad_() for x in s]

    def seen(*inputs):
        return tuple(draw(Scene(*inputs), (18, 17), antialiased=True))

    fast = bodies.in_use() == "triton"
    assert torch.autograd.gradcheck(seen, inputs, atol=1e-5, rtol=1e-4, fast_mode=fast)


def test_gradients_are_the_same_when_light_is_all_used_up():
    # The way back divides by nothing: behind an opaque splat sums are differences of two that are equal.
    s = scene(60, 3)
    s.opacities[:] = 0.99
    s.scales.mul_(4)
    inputs = [x.float().requires_grad_() for x in s[:5]]
    found = draw(Scene(*inputs, s.pose.float(), s.lens.float()))
    got = torch.autograd.grad(found.image.square().sum(), inputs)
    double = [x.requires_grad_() for x in s[:5]]
    want = torch.autograd.grad(draw(Scene(*double, s.pose, s.lens)).image.square().sum(), double)
    for g, w in zip(got, want, strict=True):
        assert (g - w).norm() < 2e-4 * w.norm()


@pytest.mark.numba_bodies
def test_the_same_bits_for_any_number_of_threads():
    s, most = scene(300, 3, torch.float32, (130, 90)), numba.get_num_threads()

    def bits():
        inputs = [x.clone().requires_grad_() for x in s]
        absolute = torch.zeros(300, 2, requires_grad=True)
        found = draw(Scene(*inputs), (130, 90), absolute=absolute)
        loss = found.image.square().sum() + found.transmittance.sum()
        return *found, *torch.autograd.grad(loss, (*inputs, absolute))

    first = bits()
    try:
        for threads in {1, most}:
            numba.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(bits(), first, strict=True))
    finally:
        numba.set_num_threads(most)


@pytest.mark.numba_bodies
def test_drawing_compiles_without_graph_break_for_all_sizes():
    def loss(means, quats, scales, opacities, features, pose, lens):
        found = draw(Scene(means, quats, scales, opacities, features, pose, lens))
        return found.image.square().sum() + found.transmittance.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (7, 12):
        s = scene(count, dtype=torch.float32)
        results = []
        for function in (compiled, loss):
            inputs = [x.clone().requires_grad_() for x in s]
            value = function(*inputs)
            results.append((value, *torch.autograd.grad(value, inputs)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_an_empty_cloud_is_an_empty_image_with_gradients():
    inputs = [x.requires_grad_() for x in scene(0)]
    image, through = draw(Scene(*inputs))
    assert image.shape == (SIZE[1], SIZE[0], 3) and not image.any() and (through == 1).all()
    grads = torch.autograd.grad(image.sum() + through.sum(), inputs, allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


def test_lists_that_are_out_of_range_are_refused_before_memory_is_read():
    place, conics, opacities, features, tiles = flat(6, (40, 20))
    count, entries = 6, len(tiles.splats)

    def changed(name, index, value):
        tensor = getattr(tiles, name).clone()
        tensor[index] = value
        return tiles._replace(**{name: tensor})

    forward = [
        (changed("splats", 0, count), rf"splats\[0\] is {count}, expected a value in \[0, {count}\)"),
        (changed("splats", 1, -1), r"splats\[1\] is -1"),
        (changed("starts", 2, entries + 5), "starts runs from 0"),
        (changed("starts", 1, -3), "starts runs from 0"),
        (changed("starts", -1, 1 << 40), f"expected numbers that do not fall, from 0 to {entries}"),
    ]
    for wrong, message in forward:
        with pytest.raises(ValueError, match=message):
            blend_splats(place, conics, opacities, features, wrong, (40, 20))
    image, through = blend_splats(place, conics, opacities, features, tiles, (40, 20))
    backward = [
        (changed("slots", 1, entries), rf"slots\[1\] is {entries}"),
        (changed("slots", 0, -1), r"slots\[0\] is -1"),
        (changed("offsets", 2, 1 << 40), "offsets runs from 0"),
        (changed("offsets", 0, -4), "offsets runs from -4"),
    ]
    for wrong, message in [*forward[:2], *backward]:
        with pytest.raises(ValueError, match=message):
            blend_backward(place, conics, opacities, features, *wrong, image, through, image, through, False)


def test_errors_say_what_came():
    place, conics, opacities, features, tiles = flat()
    good = {"means2d": place, "conics": conics, "opacities": opacities, "features": features}
    good |= {"tiles": tiles, "size": SIZE}
    cases = {
        r"conics has shape \(20, 2\), expected \(20, 3\)": {"conics": conics[:, :2]},
        "features is float32, expected float64": {"features": features.float()},
        r"features has shape \(19, 3\), expected \(20, C\)": {"features": features[1:]},
        "absolute has 3 rows, expected 20": {"absolute": torch.zeros(3, 2, dtype=D)},
        r"starts has shape \(7,\), expected \(13\)": {"size": (37, 50)},
        "splats is int64, expected int32": {"tiles": tiles._replace(splats=tiles.splats.long())},
        "slots has shape": {"tiles": tiles._replace(slots=tiles.slots[1:])},
        r"offsets has shape \(20,\), expected \(21\)": {"tiles": Tiles(*tiles[:3], tiles.offsets[1:])},
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            blend_splats(**(good | wrong))
