"""Blending of splats under the law suite."""

import torch

from sparse3d_ops import splat_blend
from tests.ops.laws import OpLaw
from tests.oracles import splat_blend as oracle
from tests.oracles import splat_tiles

CPU = torch.device("cpu")


def ellipses(count, width, height, dtype, size=4.0):
    """means2d, conics, opacities, reach and depths of ellipses of about so many px."""
    place = (torch.rand(count, 2, dtype=dtype) * 1.2 - 0.1) * torch.tensor([width, height], dtype=dtype)
    root = torch.randn(count, 2, 2, dtype=dtype) * size * 0.5 + torch.eye(2, dtype=dtype) * size
    wide = root @ root.mT + 0.3 * torch.eye(2, dtype=dtype)
    inverse = torch.linalg.inv(wide)
    conics = torch.stack((inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]), 1)
    reach = 3.33 * torch.sqrt(torch.diagonal(wide, dim1=1, dim2=2))  # sqrt(2 log 255)
    opacities, depths = torch.rand(count, dtype=dtype) * 0.9 + 0.05, torch.rand(count, dtype=dtype) + 0.5
    return place, conics, opacities, reach, depths


def _blend(count, width=20, height=18, channels=3, size=4.0, change=None):
    def make(dtype, device):
        place, conics, opacities, reach, depths = ellipses(count, width, height, dtype, size)
        features = torch.randn(count, channels, dtype=dtype)
        tiles = splat_tiles.tile_lists(place, reach, depths, width, height)
        if change:
            change(place, conics, opacities)
        inputs = place, conics, opacities, features, place.new_zeros(0, 2), *tiles
        return *(x.to(device) for x in inputs), width, height

    return make


def _opaque(place, conics, opacities):
    """Alpha is held down, and too little light is left for most."""
    opacities[:] = torch.linspace(0.97, 1.3, len(opacities))
    conics *= 0.05


def _nothing(place, conics, opacities):
    """No opacity, no ellipse, not finite: four of them change nothing."""
    opacities[0], opacities[1] = 0, torch.nan
    conics[2], conics[3], conics[4] = 0, torch.nan, torch.tensor([1.0, 2, 1])
    place[5, 0], place[6, 1] = torch.nan, torch.inf


CASES = {
    "empty": _blend(0),
    "single": _blend(1),
    "one_pixel": _blend(3, 1, 1),
    "no_channels": _blend(5, 17, 3, channels=0),
    "many": _blend(13),
    "opaque": _blend(40, change=_opaque),
    "nothing": _blend(9, change=_nothing),
    "wide": _blend(6, 16, 5, channels=64),
    "wider": _blend(4, 9, 4, channels=67),
    "small": _blend(30, 40, 20, size=0.4),
}


def _backward(case, wants_absolute):
    def make(dtype, device):
        *splats, absolute, starts, splats_of, slots, offsets, width, height = case(dtype, CPU)
        lists = starts, splats_of, slots, offsets
        image, through = oracle.blend(*splats, absolute, *lists, width, height)
        grads = torch.randn_like(image), torch.randn_like(through)
        inputs = *splats, *lists, image, through, *grads
        return *(x.to(device) for x in inputs), wants_absolute

    return make


LAWS = [
    OpLaw(
        splat_blend.blend,
        oracle.blend,
        CASES,
        differentiable=(0, 1, 2, 3),
        tolerance=1e-4,  # what little light an opaque splat leaves is a difference
        gradient_cases=("empty", "single", "one_pixel", "no_channels", "many", "nothing", "small"),
    ),
    OpLaw(
        splat_blend.blend_backward,
        oracle.blend_backward,
        {name: _backward(case, name != "single") for name, case in CASES.items()},
        tolerance=1e-4,  # what lies behind a splat is a difference
    ),
]
