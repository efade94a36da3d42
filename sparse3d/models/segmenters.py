"""Every segmenter there is: what they have in common, and the one that a config asks for."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sparse3d.frames import SegmentationBatch
from sparse3d.models.minkunet import MinkUNet, MinkUNetConfig
from sparse3d.models.point_voxels import input_channels, point_voxels
from sparse3d.models.segmentation_losses import segmentation_losses

SegmenterConfig = MinkUNetConfig


@runtime_checkable
class SegmenterModel(Protocol):
    """What training and prediction need of a segmenter, which is an nn.Module too."""

    def logits(self, batch: SegmentationBatch) -> Tensor:
        """(P, C) of every point of the batch, also of those that share a voxel."""
        ...

    def loss(self, batch: SegmentationBatch) -> dict[str, Tensor]:
        """Named scalar losses; their sum is minimised."""
        ...

    def predict(self, batch: SegmentationBatch) -> list[Tensor]:
        """(n,) int64 labels of the points of each frame; call `eval()` before."""
        ...


class VoxelSegmenter(nn.Module):
    """Points -> voxels -> network -> logits of voxels -> logits of the points in them."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.config = config
        channels, classes = input_channels(config.point_channels, config.inputs), len(config.classes)
        self.network = MinkUNet(channels, classes, config)

    def logits(self, batch: SegmentationBatch) -> Tensor:
        config = self.config
        if not len(batch.points):
            return batch.points.new_zeros(0, len(config.classes))
        voxels, point_voxel = point_voxels(
            batch.points, batch.point_frame, config.voxel_size, batch.batch_size, config.inputs
        )
        return self.network(voxels).features[point_voxel]

    def loss(self, batch: SegmentationBatch) -> dict[str, Tensor]:
        return segmentation_losses(self.logits(batch), batch.labels, self.config.loss)

    def predict(self, batch: SegmentationBatch) -> list[Tensor]:
        return batch.split(self.logits(batch).argmax(dim=1))


def build_segmenter(config: SegmenterConfig) -> nn.Module:
    """The network of a config, freshly initialised; it is a `SegmenterModel`."""
    return VoxelSegmenter(config)


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def frame_logits(model: nn.Module, batch: SegmentationBatch) -> list[Tensor]:
    """(n, C) of each frame, without gradients."""
    assert isinstance(model, SegmenterModel)
    with torch.no_grad():
        return batch.split(model.logits(batch))
