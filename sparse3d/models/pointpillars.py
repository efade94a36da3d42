"""PointPillars: no 3D convolution at all.

    points -> pillars -> BEV map -> 2D backbone -> anchor head -> boxes

Lang et al.: "PointPillars: Fast Encoders for Object Detection from Point Clouds" (arXiv 1812.05784). Where we
differ: see `pillar_features` (all points count).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.anchor_head import AnchorHead, AnchorHeadConfig, AnchorMaps
from sparse3d.models.anchors import check_classes
from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig
from sparse3d.models.center_code import BevGrid
from sparse3d.models.pillar_features import PillarFeatures
from sparse3d.models.voxel_features import Bounds, DynamicVoxelFeaturesConfig, VoxelFeaturesConfig


@dataclass(frozen=True)
class PointPillarsConfig:
    """The defaults are KITTI's: three classes, pillars of 16 cm, BEV cells of 32 cm."""

    kind: Literal["pointpillars"] = "pointpillars"
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # labels are indices into this list
    bounds: Bounds = (
        0.0,
        -39.68,
        -3.0,
        69.12,
        39.68,
        1.0,
    )  # x_min, y_min, z_min, x_max, y_max, z_max, metres
    voxel_size: tuple[float, float, float] = (0.16, 0.16, 4.0)  # metres; as high as the bounds
    point_channels: int = 4  # x, y, z, intensity
    pillar_features: VoxelFeaturesConfig = DynamicVoxelFeaturesConfig((64,))
    bev: BevBackboneConfig = BevBackboneConfig(
        layers=(3, 5, 5),
        strides=(2, 2, 2),
        filters=(64, 128, 256),
        upsample_strides=(1, 2, 4),
        upsample_filters=(128, 128, 128),
    )
    head: AnchorHeadConfig = AnchorHeadConfig()

    def __post_init__(self) -> None:
        check_classes(self.head.anchors, self.classes)


class PointPillars(nn.Module):
    """DetectionBatch -> maps (`forward`), losses (`loss`) or detections (`predict`)."""

    def __init__(self, config: PointPillarsConfig):
        super().__init__()
        self.config = config
        self.pillar_features = PillarFeatures(
            config.point_channels, config.voxel_size, config.bounds, config.pillar_features
        )
        self.bev = BevBackbone(self.pillar_features.out_channels, config.bev)
        grid = BevGrid.over(config.bounds, config.voxel_size, 1, self.pillar_features.size, config.bev)
        self.head = AnchorHead(config.bev.out_channels, grid, config.head)

    def forward(self, batch: DetectionBatch) -> AnchorMaps:
        return self.head(self.bev(self.pillar_features(batch.points, batch.point_frame, batch.batch_size)))

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses, weighted: the total is their sum. Boxes centred out of bounds are ignored."""
        return self.head.loss(self(batch), batch)

    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        return self.head.decode(self(batch))
