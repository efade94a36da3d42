"""CenterPoint: objects as points in a bird's-eye view.

    points -> voxels -> sparse 3D backbone -> BEV map -> 2D backbone -> centre head -> heatmap of centres +
    boxes

With the backbone "pillars" the voxels are as high as the bounds and lie on the map as they are.

Yin, Zhou, Krähenbühl: "Center-based 3D Object Detection and Tracking" (arXiv 2006.11275), its first stage.
Where we differ: an IoU branch corrects the scores and the boxes get a DIoU loss besides L1 (both as later
work on the same head does); all classes share one head unless the config groups them; every point of a voxel
counts, not the first five; rotated NMS runs class by class.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig
from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_decode import CenterDecodeConfig, decode_detections
from sparse3d.models.center_head import CenterHead, CenterHeadConfig, CenterHeadOutput
from sparse3d.models.center_losses import CenterLossConfig, batch_losses
from sparse3d.models.class_groups import group_labels
from sparse3d.models.pillar_features import PillarScatter, PillarScatterConfig
from sparse3d.models.voxel_backbone import VoxelBackbone, VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.models.voxel_features import MeanVoxelFeaturesConfig, VoxelFeatures, VoxelFeaturesConfig

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class CenterPointConfig:
    """The defaults are KITTI's: three classes, 5 cm voxels, BEV cells of 40 cm."""

    kind: Literal["centerpoint"] = "centerpoint"
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # labels are indices into this list
    bounds: Bounds = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)  # x_min, y_min, z_min, x_max, y_max, z_max, metres
    voxel_size: tuple[float, float, float] = (0.05, 0.05, 0.1)  # metres
    point_channels: int = 4  # x, y, z, intensity
    voxel_features: VoxelFeaturesConfig = MeanVoxelFeaturesConfig()
    backbone: VoxelBackbone8xConfig | VoxelResBackbone8xConfig | PillarScatterConfig = VoxelBackbone8xConfig()
    bev: BevBackboneConfig = BevBackboneConfig()
    head: CenterHeadConfig = CenterHeadConfig()
    gaussian_overlap: float = 0.1  # IoU that the heatmap's Gaussians are sized for
    min_radius: int = 2  # of a Gaussian, BEV cells
    loss: CenterLossConfig = CenterLossConfig()
    decode: CenterDecodeConfig = CenterDecodeConfig()

    def __post_init__(self) -> None:
        group_labels(self.head.groups, self.classes)  # raises where they do not fit
        self.decode.check_classes(len(self.classes), self.head.iou_branch)

    @property
    def group_labels(self) -> tuple[tuple[int, ...], ...]:
        """Labels of each head group's channels."""
        return group_labels(self.head.groups, self.classes)


class CenterPoint(nn.Module):
    """DetectionBatch -> maps (`forward`), losses (`loss`) or detections (`predict`)."""

    def __init__(self, config: CenterPointConfig):
        super().__init__()
        self.config = config
        self.group_labels = config.group_labels

        flat = isinstance(config.backbone, PillarScatterConfig)
        self.voxel_features = VoxelFeatures(
            config.point_channels,
            config.voxel_size,
            config.bounds,
            config.voxel_features,
            spare_z=0 if flat else 1,
        )
        channels, shape = self.voxel_features.out_channels, self.voxel_features.shape
        if isinstance(config.backbone, PillarScatterConfig):
            self.backbone = PillarScatter(channels, shape)
        else:
            self.backbone = VoxelBackbone(channels, shape, config.backbone)
        self.bev = BevBackbone(self.backbone.out_channels, config.bev)
        self.head = CenterHead(
            self.bev.config.out_channels, tuple(len(labels) for labels in self.group_labels), config.head
        )

        self.grid = BevGrid.over(
            config.bounds, config.voxel_size, config.backbone.stride, self.backbone.bev_size, config.bev
        )

    def bev_map(self, batch: DetectionBatch) -> Float[Tensor, "B C X Y"]:
        """What the head sees."""
        voxels = self.voxel_features(batch.points, batch.point_frame, batch.batch_size)
        return self.bev(self.backbone(voxels))

    def forward(self, batch: DetectionBatch) -> CenterHeadOutput:
        return self.head(self.bev_map(batch))

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses, weighted: the total is their sum. Boxes centred out of bounds are ignored."""
        return self.losses_of(self(batch), batch)

    def losses_of(self, output: CenterHeadOutput, batch: DetectionBatch) -> dict[str, Tensor]:
        """The losses of maps that are there already."""
        return batch_losses(
            self(batch),
            batch,
            self.group_labels,
            self.grid,
            self.config.loss,
            overlap=self.config.gaussian_overlap,
            min_radius=self.config.min_radius,
        )

    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        return decode_detections(self(batch), self.group_labels, self.grid, self.config.decode)
