"""DSVT: sets of voxels that attend to each other, in windows, along y and along x in turn.

    points -> voxels or pillars -> set attention, pooled in z -> BEV map -> residual 2D backbone -> head

Wang et al., "DSVT: Dynamic Sparse Voxel Transformer with Rotated Sets" (arXiv 2301.06051). Where we differ:
points outside of the bounds are dropped in z too; each layer embeds places in the windows that it works in
(see `dsvt_layers`). The head is CenterPoint's with an IoU branch, or TransFusion's.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.bev_res_backbone import BevResBackbone, BevResBackboneConfig
from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_decode import CenterDecodeConfig, decode_detections
from sparse3d.models.center_head import CenterHead, CenterHeadConfig, CenterHeadOutput
from sparse3d.models.center_losses import CenterLossConfig, batch_losses
from sparse3d.models.class_groups import group_labels
from sparse3d.models.dsvt_backbone import DSVTBackbone, DSVTBackboneConfig
from sparse3d.models.transfusion_boxes import QueryOutput
from sparse3d.models.transfusion_head import TransFusionHead, TransFusionHeadConfig
from sparse3d.models.voxel_features import DynamicVoxelFeaturesConfig, VoxelFeatures, VoxelFeaturesConfig

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class DSVTConfig:
    """The defaults are those of the pillar variant for Waymo."""

    kind: Literal["dsvt"] = "dsvt"
    classes: tuple[str, ...] = ("Vehicle", "Pedestrian", "Cyclist")  # labels are indices into this list
    bounds: Bounds = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)  # x, y, z minima, then maxima, metres
    voxel_size: tuple[float, float, float] = (0.32, 0.32, 6.0)  # metres; as high as the bounds: pillars
    point_channels: int = 5  # x, y, z, intensity, elongation
    voxel_features: VoxelFeaturesConfig = DynamicVoxelFeaturesConfig((192, 192))
    backbone: DSVTBackboneConfig = DSVTBackboneConfig()
    bev: BevResBackboneConfig = BevResBackboneConfig()
    head: CenterHeadConfig | TransFusionHeadConfig = CenterHeadConfig(norm_eps=1e-3, norm_momentum=0.01)
    # Of the centre head; TransFusion's has its own within.
    gaussian_overlap: float = 0.1  # IoU that the heatmap's Gaussians are sized for
    min_radius: int = 2  # of a Gaussian, BEV cells
    loss: CenterLossConfig = CenterLossConfig()
    decode: CenterDecodeConfig = CenterDecodeConfig()

    def __post_init__(self) -> None:
        if isinstance(self.head, TransFusionHeadConfig):
            strangers = sorted(set(self.head.crowded) - set(self.classes))
            if strangers:
                raise ConfigError(f"head.crowded names {strangers}, the classes are {list(self.classes)}")
        else:
            group_labels(self.head.groups, self.classes)  # raises where they do not fit
            self.decode.check_classes(len(self.classes), self.head.iou_branch)
        features, channels = self.voxel_features, self.backbone.channels[0]
        if isinstance(features, DynamicVoxelFeaturesConfig) and features.channels[-1] != channels:
            raise ConfigError(
                f"voxel_features end in {features.channels[-1]} channels, the backbone begins with {channels}"
            )

    @property
    def group_labels(self) -> tuple[tuple[int, ...], ...]:
        """Labels of the channels of each group of the centre head."""
        groups = self.head.groups if isinstance(self.head, CenterHeadConfig) else ()
        return group_labels(groups, self.classes)


class DSVT(nn.Module):
    """DetectionBatch -> maps (`forward`), losses (`loss`) or detections (`predict`)."""

    def __init__(self, config: DSVTConfig):
        super().__init__()
        self.config = config
        self.group_labels = config.group_labels

        self.voxel_features = VoxelFeatures(
            config.point_channels, config.voxel_size, config.bounds, config.voxel_features, spare_z=0
        )
        self.backbone = DSVTBackbone(self.voxel_features.shape, config.backbone)
        self.bev = BevResBackbone(self.backbone.out_channels, config.bev)
        size_x, size_y = (config.bev.output_size(size) for size in self.backbone.bev_size)
        cell_x, cell_y = (
            voxel * stride * config.bev.stride
            for voxel, stride in zip(config.voxel_size, config.backbone.stride, strict=False)
        )
        self.grid = BevGrid(config.bounds, (cell_x, cell_y), (size_x, size_y))
        channels = config.bev.out_channels
        if isinstance(config.head, TransFusionHeadConfig):
            self.head = TransFusionHead(channels, config.classes, self.grid, config.head)
        else:
            self.head = CenterHead(channels, tuple(len(labels) for labels in self.group_labels), config.head)

    def forward(self, batch: DetectionBatch) -> CenterHeadOutput | QueryOutput:
        voxels = self.voxel_features(batch.points, batch.point_frame, batch.batch_size)
        return self.head(self.bev(self.backbone(voxels)))

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses, weighted: the total is their sum. Boxes centred out of bounds are ignored."""
        output = self(batch)
        if isinstance(self.head, TransFusionHead):
            return self.head.loss(output, batch)
        return batch_losses(
            output,
            batch,
            self.group_labels,
            self.grid,
            self.config.loss,
            overlap=self.config.gaussian_overlap,
            min_radius=self.config.min_radius,
        )

    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        output = self(batch)
        if isinstance(self.head, TransFusionHead):
            return self.head.decode(output)
        return decode_detections(output, self.group_labels, self.grid, self.config.decode)
