"""Every segmenter there is: what training and prediction need of it, and the one that a config asks for."""

from torch import Tensor

from sparse3d.frames import SegmentationBatch
from sparse3d.models.cylinder3d import Cylinder3D, Cylinder3DConfig
from sparse3d.models.minkunet import MinkUNet, MinkUNetConfig
from sparse3d.models.point_voxels import input_channels, point_voxels
from sparse3d.models.segmenter import Segmenter
from sparse3d.models.spunet import SpUNet, SpUNetConfig
from sparse3d_ops.segment import gather_rows

UNetConfig = MinkUNetConfig | SpUNetConfig
SegmenterConfig = MinkUNetConfig | SpUNetConfig | Cylinder3DConfig


class VoxelSegmenter(Segmenter):
    """Points -> voxels -> U-Net -> logits of voxels -> logits of the points in them."""

    def __init__(self, config: UNetConfig):
        super().__init__(config.loss)
        self.config = config
        channels, classes = input_channels(config.point_channels, config.inputs), len(config.classes)
        match config:
            case MinkUNetConfig():
                self.network = MinkUNet(channels, classes, config)
            case SpUNetConfig():
                self.network = SpUNet(channels, classes, config)

    def logits(self, batch: SegmentationBatch) -> Tensor:
        config = self.config
        voxels, point_voxel = point_voxels(
            batch.points, batch.point_frame, config.voxel_size, batch.batch_size, config.inputs
        )
        return gather_rows(self.network(voxels).features, point_voxel)


def build_segmenter(config: SegmenterConfig) -> Segmenter:
    """The network of a config, freshly initialised."""
    return Cylinder3D(config) if isinstance(config, Cylinder3DConfig) else VoxelSegmenter(config)
