"""Sizes, parameters and layout of the BEV backbone."""

import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig

SMALL = BevBackboneConfig(layers=(1, 1), filters=(8, 16), upsample_filters=(8, 8))


def test_parameter_count_of_second():
    # conv 3x3 without bias 9 * cin * cout, then 2 * cout of the norm; a level has 1 + 5 layers.
    level_1 = 9 * 256 * 128 + 5 * 9 * 128 * 128 + 6 * 2 * 128
    level_2 = 9 * 128 * 256 + 5 * 9 * 256 * 256 + 6 * 2 * 256
    up = 128 * 256 + 2 * 256 + 4 * 256 * 256 + 2 * 256
    model = BevBackbone(256, BevBackboneConfig())
    assert sum(p.numel() for p in model.parameters()) == level_1 + level_2 + up
    assert model.config.out_channels == 512


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (7, 5), (1, 1), (13, 6)])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_keeps_odd_sizes(size, memory_format):
    config = BevBackboneConfig(
        layers=(1, 0, 1),
        strides=(1, 2, 2),
        filters=(4, 8, 8),
        upsample_strides=(1, 2, 4),
        upsample_filters=(4, 4, 4),
        memory_format=memory_format,
    )
    assert BevBackbone(3, config)(torch.randn(2, 3, *size)).shape == (2, 12, *size)


@pytest.mark.parametrize(("size", "want"), [((16, 16), (4, 4)), ((17, 13), (5, 4)), ((3, 1), (1, 1))])
def test_upsampling_below_one_shrinks(size, want):
    config = BevBackboneConfig(
        layers=(0, 0, 0),
        strides=(2, 2, 2),
        filters=(4, 4, 4),
        upsample_strides=(0.5, 1, 2),
        upsample_filters=(4, 4, 4),
    )
    assert config.stride == 4
    assert BevBackbone(3, config)(torch.randn(2, 3, *size)).shape == (2, 12, *want)


def test_layout_in_memory_does_not_change_numbers():
    torch.manual_seed(0)
    one = BevBackbone(4, SMALL)
    other = BevBackbone(
        4,
        BevBackboneConfig(
            layers=(1, 1), filters=(8, 16), upsample_filters=(8, 8), memory_format="channels_last"
        ),
    )
    other.load_state_dict(one.state_dict())
    bev = torch.randn(2, 4, 12, 10)
    # Other summation order; activations are of order one.
    torch.testing.assert_close(one(bev), other(bev), rtol=1e-4, atol=1e-4)


def test_axis_two_is_x_and_axis_three_is_y():
    """A signal in one corner comes out around that corner."""
    torch.manual_seed(0)
    model = BevBackbone(1, SMALL).eval()
    bev = torch.zeros(1, 1, 40, 24)
    bev[0, 0, 30, 4] = 1
    change = (model(bev) - model(torch.zeros_like(bev))).abs().sum(dim=(0, 1))
    x, y = (change > 1e-6).nonzero().T
    assert abs(x.float().mean() - 30) < 1.5 and abs(y.float().mean() - 4) < 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upsample_strides": (1, 1)}, "different strides"),
        ({"strides": (1,)}, "one entry a level"),
        ({"strides": (2, 2), "upsample_strides": (1.5, 3)}, "must be n and n or 1/n"),
    ],
)
def test_levels_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        BevBackboneConfig(**changes)
