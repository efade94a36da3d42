"""A radiance field with the losses that it is trained by."""

import torch
from torch import Tensor, nn

from sparse3d.fields.background import LearnedBackground, LearnedBackgroundConfig
from sparse3d.fields.build import FieldConfig, build_field
from sparse3d.fields.low_rank import LowRankField
from sparse3d.fields.pose_refinement import PoseRefinement
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.nn.sums import repeatable_mean
from sparse3d.recipes.radiance.batches import PixelBatch
from sparse3d.recipes.radiance.config import PriorsConfig, RadianceConfig, RadianceLossConfig
from sparse3d.recipes.radiance.priors import prior_losses, rays_of


def fresh_background(config: RadianceConfig) -> LearnedBackground | None:
    """None where the background is a colour of the data."""
    if config.background == "data":
        return None
    wanted = LearnedBackgroundConfig() if config.background == "learned" else config.background
    return LearnedBackground(wanted, wanted.rate / config.optimizer.lr)


class FieldModel(nn.Module):
    """A fresh field (seed first) as the training loop takes it."""

    def __init__(
        self,
        field: FieldConfig,
        config: RadianceLossConfig,
        priors: PriorsConfig | None = None,
        poses: PoseRefinement | None = None,
        background: LearnedBackground | None = None,
    ):
        super().__init__()
        self.field, self.space = build_field(field), field.space
        self.config, self.priors, self.poses = config, priors or PriorsConfig(), poses
        self.background = background

    def loss(self, batch: PixelBatch) -> dict[str, Tensor]:
        """`color`, the field's own terms, those of the priors, and `opaque` of a learned background."""
        if self.poses is not None:
            batch = batch._replace(rays=self.poses(batch.rays, batch.photo))
        origins, directions = rays_of(batch)
        offsets = torch.rand_like(origins[:, 0])
        behind = batch.background if self.background is None else self.background(directions)
        traced = self.field.trace(origins, directions, behind, offsets)
        seen = traced.seen.color[: len(batch.rays.origins)]
        error = seen.view(batch.batch_size, -1, 3).mean(1) - batch.colors
        error = error.abs() if self.config.color == "absolute" else error.square()
        losses = {
            "color": error.sum(1).mean(),
            **traced.terms,
            **prior_losses(traced, batch, self.priors, self.space),
        }
        if self.background is not None:
            losses["opaque"] = self.background.weight * repeatable_mean(traced.seen.opacity)
        return losses

    def reshape_for(self, tensors: dict[str, Tensor]) -> None:
        """See `VoxelField.reshape_for`; the other fields keep their shape."""
        if isinstance(self.field, VoxelField | LowRankField):
            self.field.reshape_for({name.removeprefix("field."): tensor for name, tensor in tensors.items()})
