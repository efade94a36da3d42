"""A radiance field with the losses that it is trained by."""

import torch
from torch import Tensor, nn

from sparse3d.fields.build import FieldConfig, build_field
from sparse3d.fields.low_rank import LowRankField
from sparse3d.fields.pose_refinement import PoseRefinement
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.recipes.radiance.batches import PixelBatch
from sparse3d.recipes.radiance.config import PriorsConfig, RadianceLossConfig
from sparse3d.recipes.radiance.priors import prior_losses, rays_of


class FieldModel(nn.Module):
    """A fresh field (seed first) as the training loop takes it."""

    def __init__(
        self,
        field: FieldConfig,
        config: RadianceLossConfig,
        priors: PriorsConfig | None = None,
        poses: PoseRefinement | None = None,
    ):
        super().__init__()
        self.field, self.space = build_field(field), field.space
        self.config, self.priors, self.poses = config, priors or PriorsConfig(), poses

    def loss(self, batch: PixelBatch) -> dict[str, Tensor]:
        """`color`, the field's own terms and those of the priors."""
        if self.poses is not None:
            batch = batch._replace(rays=self.poses(batch.rays, batch.photo))
        origins, directions = rays_of(batch)
        offsets = torch.rand_like(origins[:, 0])
        traced = self.field.trace(origins, directions, batch.background, offsets)
        seen = traced.seen.color[: len(batch.rays.origins)]
        error = seen.view(batch.batch_size, -1, 3).mean(1) - batch.colors
        error = error.abs() if self.config.color == "absolute" else error.square()
        return {
            "color": error.sum(1).mean(),
            **traced.terms,
            **prior_losses(traced, batch, self.priors, self.space),
        }

    def reshape_for(self, tensors: dict[str, Tensor]) -> None:
        """See `VoxelField.reshape_for`; the other fields keep their shape."""
        if isinstance(self.field, VoxelField | LowRankField):
            self.field.reshape_for({name.removeprefix("field."): tensor for name, tensor in tensors.items()})
