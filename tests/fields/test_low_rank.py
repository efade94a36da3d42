"""What is special about the low-rank field: products by hand, growth, and colours where they are seen."""

from dataclasses import replace

import pytest
import torch

from sparse3d.fields.low_rank import DENSITY_SCALE, LowRankField, LowRankFieldConfig
from sparse3d.fields.sampled_field import SampledField
from sparse3d.fields.samplers import OccupancySamplerConfig
from sparse3d.fields.space import SpaceConfig
from tests.fields import small_scene

SMALL = LowRankFieldConfig(
    sampler=OccupancySamplerConfig(resolution=16, steps=64),
    resolution=6,
    density_components=2,
    color_components=3,
    features=5,
    width=8,
)


def made(config=SMALL):
    torch.manual_seed(0)
    return LowRankField(config)


@torch.no_grad()
def test_a_product_set_by_hand_is_the_density():
    config = replace(SMALL, space=SpaceConfig((0.0, 0.0, 0.0), 2.0), initial_density=-1.0)
    field, axis = made(config), torch.linspace(0, 1, 7)
    field.density_parts.planes.zero_()
    # Mode 1: its line goes along y, its plane over x and z. A bent line: straight between its points alone.
    field.density_parts.planes.view(3, 7, 7, 2)[1, :, :, 0] = 2 * axis[:, None] + axis
    field.density_parts.lines.view(3, 7, 2)[1, :, 0] = axis.square()
    at = torch.tensor([[0.5, 1.0, 1.5], [2.0, 2.0, 2.0], [0.0, 1 / 6, 2.0], [2.0, 0.5, 1.0], [2.1, 1.0, 1.0]])
    # Half way between the lattice points 1/6 and 2/6 of the line lies the mean of their squares.
    product = torch.tensor([1.25 * 0.25, 3.0, 1.0 * (0 + 1 / 36) / 2, 2.5 * (1 / 36 + 4 / 36) / 2])
    want = DENSITY_SCALE * torch.nn.functional.softplus(product - 1)
    torch.testing.assert_close(field.density(at), torch.cat([want, torch.zeros(1)]))


@torch.no_grad()
def test_growing_changes_nothing():
    field = made()
    at, ways = torch.rand(300, 3) * 1.5 - 0.75, torch.nn.functional.normalize(torch.randn(300, 3), dim=1)
    before = field.density(at), field.color(at, ways)
    parts = field.density_parts
    planes, lines = (table.detach().clone() for table in (parts.planes, parts.lines))
    field.grow()
    torch.testing.assert_close((field.density(at), field.color(at, ways)), before)
    assert parts.points == field.color_parts.points == 13
    assert torch.equal(parts.planes.view(3, 13, 13, 2)[:, ::2, ::2], planes.view(3, 7, 7, 2))
    assert torch.equal(parts.lines.view(3, 13, 2)[:, ::2], lines.view(3, 7, 2))


def test_a_grown_field_is_loaded_into_a_fresh_one():
    field, other = made(), made()
    field.grow()
    other.reshape_for(field.state_dict())
    other.load_state_dict(field.state_dict())
    at = torch.rand(50, 3) - 0.5
    assert torch.equal(other.density(at), field.density(at))
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_samples_that_are_left_out_were_not_seen():
    """Bits of pictures and of gradients are those of all samples."""
    found = []
    for of_class in (LowRankField, SampledField):
        field = made(replace(SMALL, initial_density=3.0))
        origins, directions = small_scene.rays(100)
        drawn = of_class.draw(field, origins, directions, torch.full((100,), 0.5))
        result, _ = field._composite(drawn, origins, directions, False)
        result.out.sum().backward()
        found.append((len(drawn.samples.t), result.out, [p.grad for p in field.parameters()]))
    (fewer, out, gradients), (count, want, whole) = found
    assert 0 < fewer < 0.5 * count
    assert torch.equal(out, want)
    for gradient, wanted in zip(gradients, whole, strict=True):
        torch.testing.assert_close(gradient, wanted)  # weights of networks are summed in other parts


def test_gradients_are_of_both_products():
    field = made()
    origins, directions = small_scene.rays(50)
    field.trace(origins, directions, torch.ones(3), torch.rand(50)).seen.color.sum().backward()
    for parts in (field.density_parts, field.color_parts):
        assert parts.planes.grad.any() and parts.lines.grad.any()


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="density_components must be at least 1, got 0"):
        LowRankFieldConfig(density_components=0)
    with pytest.raises(ValueError, match="sh_degree must be 0 to 4"):
        LowRankFieldConfig(sh_degree=5)
