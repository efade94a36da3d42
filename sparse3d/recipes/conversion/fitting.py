"""Radiance voxels, Gaussians and surfels made to look like what they came from: some steps of training on
pictures of it, from a ring of cameras.

Behind each picture stands another colour at each step, with the opacity that is known for each pixel: what is
empty is learned to be empty, which no picture before one background tells. Everything follows from the seed,
the same bits for any number of threads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.engine.selective_adam import SelectiveAdam
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.render import SplatView, render
from sparse3d.gaussians.repair import repair
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.rays import rays_of_image
from sparse3d.nn.threads import one_torch_thread
from sparse3d.recipes.conversion.kinds import ConversionConfig, Thing
from sparse3d.recipes.conversion.views import bounds_of, ring, sight
from sparse3d_ops.structural_similarity import ssim_map

_FALL = 0.05  # of the rates, at the end
_RAYS = 4096  # a step
_SIMILAR = 0.2  # weight of 1 - SSIM
# Weights of depth, in parts of the scene: colours alone move flat things inward, by half a voxel on a ball
# (surfels more, which are drawn a pixel wide where they are seen edge-on); more costs a dB of the pictures.
_DEEP, _DEEP_SURFELS = 0.3, 1.0
_SOLID = 0.9  # opacity from which on depth is that of a surface
# Twice those of Gaussian splatting's paper (arXiv 2308.04079), means' in parts of the scene ten times, and
# opacities' as they are there: hundreds of steps do what takes thousands where nothing is known. 300 steps
# for 24 000 Gaussians on three painted balls: 37.7 dB; with the paper's rates 35.5, with four times them
# 37.7.
_RATES = {"means": 1.6e-3, "scales": 1e-2, "quats": 2e-3, "opacities": 5e-2, "sh0": 5e-3, "shN": 5e-4}
# 150 steps from the density of 9 000 Gaussians on three painted balls, 96^3: 40.5 dB of their pictures; with
# a quarter of these rates 35.4.
_FIELD_RATES = {"raw_density": 0.4, "harmonics": 0.08}


class Goal(NamedTuple):
    """A picture to look like: `color` (H, W, 3) times its `opacity` (H, W), before black; `depth` (H, W)
    metres along the optical axis where it is opaque, 0 elsewhere."""

    camera: Camera
    color: Tensor
    opacity: Tensor
    depth: Tensor


def goals_of(thing: Thing, config: ConversionConfig) -> list[Goal]:
    """Pictures of a thing from a ring of cameras; none where nothing is fitted."""
    if not config.refine:
        return []
    goals = []
    for camera in ring(*bounds_of(thing), config.views, config.pixels):
        seen = sight(thing, camera, (0.0, 0.0, 0.0), rays=1 if isinstance(thing, nn.Module) else 2)
        depth = np.where(seen.opacity > _SOLID, seen.depth, 0)
        goals.append(
            Goal(camera, *(torch.from_numpy(part).float() for part in (seen.color, seen.opacity, depth)))
        )
    return goals


def fitted_cloud(cloud: GaussianCloud, goals: Sequence[Goal], steps: int, seed: int = 0) -> GaussianCloud:
    """The same Gaussians or surfels, moved, shaped and coloured to look like the goals."""
    if not steps:
        return cloud
    parts = {name: nn.Parameter(value.detach().clone()) for name, value in cloud.parameters().items()}
    low, high = bounds_of(cloud)
    reach = float(np.linalg.norm(high - low)) / 2
    rates = _RATES | {"means": _RATES["means"] * reach}
    optimizer = SelectiveAdam(
        [{"params": [part], "lr": rates[name]} for name, part in parts.items()], 1.0, eps=1e-15
    )
    paint = render_geometry if cloud.surfels else render
    random = torch.Generator().manual_seed(seed)
    rims = [_rim(goal.opacity) for goal in goals]
    deep = _DEEP_SURFELS if cloud.surfels else _DEEP
    with one_torch_thread():
        for step in range(steps):
            number = int(torch.randint(len(goals), (), generator=random))
            goal = goals[number]
            behind = torch.rand(3, generator=random).to(cloud.means)
            _slow_down(optimizer, [rates[name] for name in parts], step / steps)
            seen = paint(GaussianCloud.of(parts), SplatView.of(goal.camera, cloud.means), behind)
            wanted = goal.color + (1 - goal.opacity)[..., None] * behind
            shown = seen.color.where(~rims[number][..., None], wanted) if cloud.surfels else seen.color
            loss = (1 - _SIMILAR) * (shown - wanted).abs().mean()
            loss = loss + _SIMILAR * (1 - ssim_map(shown, wanted).mean())
            known = (goal.depth > 0) & (seen.alpha.detach() > _SOLID)
            off = (seen.depth - goal.depth).abs().where(known, 0.0).mean() / reach
            loss = loss + deep * off
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return repair(GaussianCloud.of({name: part.detach() for name, part in parts.items()}))[0]


def _rim(opacity: Tensor) -> Tensor:
    """(H, W) bool: the pixels on both sides of an outline. Surfels that are seen edge-on are drawn a pixel
    wide; fitted to outlines, all of them would move inward by that."""
    most = torch.nn.functional.max_pool2d(opacity[None, None], 3, 1, 1)[0, 0]
    least = -torch.nn.functional.max_pool2d(-opacity[None, None], 3, 1, 1)[0, 0]
    return most - least > 0.5


def fitted_field(field: VoxelField, goals: Sequence[Goal], steps: int, seed: int = 0) -> VoxelField:
    """The field itself, its densities and colours changed to look like the goals; voxels stay."""
    if not steps:
        return field
    rays = [rays_of_image(goal.camera) for goal in goals]
    origins, directions = (torch.cat([getattr(r, name) for r in rays]) for name in ("origins", "directions"))
    colors = torch.cat([goal.color.reshape(-1, 3) for goal in goals])
    opacity = torch.cat([goal.opacity.reshape(-1) for goal in goals])
    rates = [_FIELD_RATES[name] for name, _ in field.named_parameters()]
    optimizer = SelectiveAdam(
        [
            {"params": [part], "lr": rate}
            for (_, part), rate in zip(field.named_parameters(), rates, strict=True)
        ],
        1.0,
    )
    random = torch.Generator().manual_seed(seed)
    with one_torch_thread():
        for step in range(steps):
            rows = torch.randint(len(origins), (_RAYS,), generator=random)
            behind = torch.rand(_RAYS, 3, generator=random)
            offsets = torch.rand(_RAYS, generator=random)
            _slow_down(optimizer, rates, step / steps)
            traced = field.trace(origins[rows], directions[rows], behind, offsets)
            wanted = colors[rows] + (1 - opacity[rows])[:, None] * behind
            loss = (traced.seen.color - wanted).square().sum(1).mean() + sum(traced.terms.values())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return field


def _slow_down(optimizer: torch.optim.Optimizer, rates: Sequence[float], progress: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * _FALL**progress
