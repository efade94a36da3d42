"""The losses of the priors that a config names, on what a batch's rays passed through."""

from dataclasses import fields

import torch
from torch import Tensor

from sparse3d.fields import priors
from sparse3d.fields.depth_priors import ends_at
from sparse3d.fields.protocol import Traced
from sparse3d.fields.space import SpaceConfig
from sparse3d.geometry.rays import Rays
from sparse3d.nn import depth_losses
from sparse3d.recipes.radiance.batches import PixelBatch
from sparse3d.recipes.radiance.config import PriorsConfig
from sparse3d_ops.raymarch import Samples


def rays_of(batch: PixelBatch) -> Rays:
    """All that are to be traced: the pixels' rays first, then those of the guides."""
    parts = [batch.rays, *batch.guides.rays()]
    return Rays(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def prior_losses(
    traced: Traced, batch: PixelBatch, config: PriorsConfig, space: SpaceConfig
) -> dict[str, Tensor]:
    """By name, weighted; `traced` is of `rays_of(batch)`. Lengths count in sides of the field's cube."""
    losses = _of_rays(traced, rays_of(batch), config, space) | _of_pixels(traced, batch, config, space)
    begin = len(batch.rays.origins)
    depth = traced.seen.depth / space.side
    if config.ranking and batch.guides.ranked:
        end = begin + len(batch.guides.ranked.cosine)
        groups = (depth[begin:end] * batch.guides.ranked.cosine).view(-1, 4)
        nearer, farther, beside_nearer, beside_farther = groups.unbind(1)
        margin = config.ranking.margin
        order = depth_losses.ranking(nearer, farther, margin)
        smooth = depth_losses.continuity(nearer, beside_nearer, margin)
        smooth = smooth + depth_losses.continuity(farther, beside_farther, margin)
        losses["ranking"] = config.ranking.weight * (order + config.ranking.continuity * smooth)
        begin = end
    if config.points and batch.guides.points:
        points = batch.guides.points
        end = begin + len(points.distance)
        weights, samples = _part(traced, begin, end)
        samples = Samples(samples.ray_starts, samples.t / space.side, samples.dt / space.side)
        found = ends_at(weights, samples, points.distance / space.side, points.spread / space.side)
        losses["points"] = config.points.weight * found
        begin = end
    if config.unseen and batch.guides.unseen:
        side = config.unseen.side
        patches = (depth[begin:] * batch.guides.unseen.cosine).view(-1, side, side)
        opacity = traced.seen.opacity[begin:].view(-1, side, side)
        losses["unseen"] = config.unseen.weight * depth_losses.roughness(patches, opacity)
    return losses


def describe_priors(config: PriorsConfig) -> str:
    """`occlusion 0.01, unseen 0.1`: the priors with their weights."""
    present = {f.name: getattr(config, f.name) for f in fields(config)}
    return ", ".join(f"{name} {prior.weight:g}" for name, prior in present.items() if prior is not None)


def _of_rays(traced: Traced, rays: Rays, config: PriorsConfig, space: SpaceConfig) -> dict[str, Tensor]:
    """Those that hold for every ray."""
    samples, losses = traced.samples, {}
    if config.occlusion:
        found = priors.occlusion(traced.sigma, samples, _near(rays, space, config.occlusion.share))
        losses["occlusion"] = config.occlusion.weight * found
    if config.distortion:
        losses["distortion"] = config.distortion.weight * priors.spread(traced.weights, samples, space)
    if config.sparsity:
        found = priors.cauchy(traced.sigma, samples, space.side, config.sparsity.scale)
        losses["sparsity"] = config.sparsity.weight * found
    if config.opacity_entropy:
        found = priors.opacity_entropy(traced.seen.opacity)
        losses["opacity_entropy"] = config.opacity_entropy.weight * found
    return losses


def _of_pixels(
    traced: Traced, batch: PixelBatch, config: PriorsConfig, space: SpaceConfig
) -> dict[str, Tensor]:
    """Those that compare with what the photos hold."""
    pixels, losses = batch.batch_size, {}
    opacity = traced.seen.opacity[: len(batch.rays.origins)].view(pixels, -1)
    if config.silhouette and batch.alpha is not None:
        losses["silhouette"] = config.silhouette.weight * priors.silhouette(opacity.mean(1), batch.alpha)
    if config.depth and batch.distance is not None:
        depth = traced.seen.depth[: len(batch.rays.origins)].view(pixels, -1)
        seen = (depth * opacity).sum(1) / opacity.sum(1).clamp(min=1e-6)
        found = depth_losses.metric_depth(seen / space.side, batch.distance / space.side, config.depth.within)
        losses["depth"] = config.depth.weight * found
    return losses


def _near(rays: Rays, space: SpaceConfig, share: float) -> Tensor:
    """(R,) metres: how far from the camera, or from the field's beginning, a ray is near."""
    if space.contraction == "frustum":
        near, far = (space.warp(end) for end in space.span(*rays))
        return space.unwarp(near + share * (far - near))
    near, far = space.bounded.span(*rays)
    near = torch.zeros_like(near) if space.unbounded else near
    return near + share * (far - near)


def _part(traced: Traced, begin: int, end: int) -> tuple[Tensor, Samples]:
    """Weights and samples of some of the rays."""
    starts, t, dt = traced.samples
    first, last = int(starts[begin]), int(starts[end])
    return traced.weights[first:last], Samples(starts[begin : end + 1] - first, t[first:last], dt[first:last])
