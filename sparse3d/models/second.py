"""SECOND: sparse convolutions, then anchors.

    points -> voxels -> sparse 3D backbone -> BEV map -> 2D backbone -> anchor head -> boxes

Yan, Mao, Li: "SECOND: Sparsely Embedded Convolutional Detection" (Sensors 2018). Where we differ: every point
of a voxel counts, not the first five.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.anchor_head import AnchorHead, AnchorHeadConfig, AnchorMaps
from sparse3d.models.anchors import check_classes
from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig
from sparse3d.models.center_code import BevGrid
from sparse3d.models.voxel_backbone import VoxelBackbone, VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.models.voxel_features import Bounds, MeanVoxelFeaturesConfig, VoxelFeatures, VoxelFeaturesConfig


@dataclass(frozen=True)
class SecondConfig:
    """The defaults are KITTI's: three classes, 5 cm voxels, BEV cells of 40 cm."""

    kind: Literal["second"] = "second"
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # labels are indices into this list
    bounds: Bounds = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)  # x_min, y_min, z_min, x_max, y_max, z_max, metres
    voxel_size: tuple[float, float, float] = (0.05, 0.05, 0.1)  # metres
    point_channels: int = 4  # x, y, z, intensity
    voxel_features: VoxelFeaturesConfig = MeanVoxelFeaturesConfig()
    backbone: VoxelBackbone8xConfig | VoxelResBackbone8xConfig = VoxelBackbone8xConfig()
    bev: BevBackboneConfig = BevBackboneConfig()
    head: AnchorHeadConfig = AnchorHeadConfig()

    def __post_init__(self) -> None:
        check_classes(self.head.anchors, self.classes)


class Second(nn.Module):
    """DetectionBatch -> maps (`forward`), losses (`loss`) or detections (`predict`)."""

    def __init__(self, config: SecondConfig):
        super().__init__()
        self.config = config
        self.voxel_features = VoxelFeatures(
            config.point_channels, config.voxel_size, config.bounds, config.voxel_features
        )
        self.backbone = VoxelBackbone(
            self.voxel_features.out_channels, self.voxel_features.shape, config.backbone
        )
        self.bev = BevBackbone(self.backbone.out_channels, config.bev)
        grid = BevGrid.over(
            config.bounds, config.voxel_size, config.backbone.stride, self.backbone.bev_size, config.bev
        )
        self.head = AnchorHead(config.bev.out_channels, grid, config.head)

    def forward(self, batch: DetectionBatch) -> AnchorMaps:
        voxels = self.voxel_features(batch.points, batch.point_frame, batch.batch_size)
        return self.head(self.bev(self.backbone(voxels)))

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses, weighted: the total is their sum. Boxes centred out of bounds are ignored."""
        return self.head.loss(self(batch), batch)

    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        return self.head.decode(self(batch))
