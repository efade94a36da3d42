"""VoxelNeXt: objects straight from sparse voxels, with no dense map anywhere.

    points -> voxels -> sparse backbone -> sparse BEV cells -> sparse centre head -> a score and a box at each
    cell

Time and memory follow the number of points, not the area, which is what long ranges ask for. A detection
keeps the place of the cell that found it, its query: a tracker can follow that one instead of the box's
centre (section 3.3; `TrackerConfig.associate`). Chen, Liu,
Zhang, Qi, Jia: "VoxelNeXt: Fully Sparse VoxelNet for 3D Object Detection and Tracking" (arXiv 2303.11301).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_decode import CenterDecodeConfig, Predicted, best_candidates, finish
from sparse3d.models.center_losses import AtObjects, CenterLossConfig, head_losses
from sparse3d.models.class_groups import group_labels, sum_losses
from sparse3d.models.sparse_center_head import (
    CellTargets,
    CenterCells,
    SparseCenterHead,
    SparseCenterHeadConfig,
    cell_targets,
)
from sparse3d.models.voxel_features import MeanVoxelFeaturesConfig, VoxelFeatures, VoxelFeaturesConfig
from sparse3d.models.voxelnext_backbone import VoxelNeXtBackbone, VoxelNeXtBackboneConfig
from sparse3d.nn.functional import max_pool
from sparse3d.tensor import SparseTensor
from sparse3d_ops.segment import gather_rows

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class VoxelNeXtConfig:
    """The defaults are KITTI's: three classes, 5 cm voxels, cells of 40 cm."""

    kind: Literal["voxelnext"] = "voxelnext"
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # labels are indices into this list
    bounds: Bounds = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)  # x_min, y_min, z_min, x_max, y_max, z_max, metres
    voxel_size: tuple[float, float, float] = (0.05, 0.05, 0.1)  # metres
    point_channels: int = 4  # x, y, z, intensity
    voxel_features: VoxelFeaturesConfig = MeanVoxelFeaturesConfig()
    backbone: VoxelNeXtBackboneConfig = VoxelNeXtBackboneConfig()
    head: SparseCenterHeadConfig = SparseCenterHeadConfig()
    gaussian_overlap: float = 0.1  # IoU that the heatmap's Gaussians are sized for
    min_radius: int = 2  # of a Gaussian, cells
    loss: CenterLossConfig = CenterLossConfig(iou_regression=0.0)
    # Sparse max pooling: only cells that no neighbour of the 3x3 around them beats in a class are candidates.
    peaks_only: bool = False
    decode: CenterDecodeConfig = CenterDecodeConfig(nms_thresholds=(0.2,))

    def __post_init__(self) -> None:
        group_labels(self.head.groups, self.classes)  # raises where they do not fit
        self.decode.check_classes(len(self.classes), self.head.iou_branch)

    @property
    def group_labels(self) -> tuple[tuple[int, ...], ...]:
        """Labels of each head group's channels."""
        return group_labels(self.head.groups, self.classes)


class VoxelNeXt(nn.Module):
    """DetectionBatch -> cells and their outputs (`forward`), losses (`loss`) or detections (`predict`)."""

    def __init__(self, config: VoxelNeXtConfig):
        super().__init__()
        self.config = config
        self.group_labels = config.group_labels
        self.voxel_features = VoxelFeatures(
            config.point_channels, config.voxel_size, config.bounds, config.voxel_features, spare_z=1
        )
        self.backbone = VoxelNeXtBackbone(
            self.voxel_features.out_channels, self.voxel_features.shape, config.backbone
        )
        sizes = tuple(len(labels) for labels in self.group_labels)
        self.head = SparseCenterHead(config.backbone.out_channels, sizes, config.head)

        side_x, side_y, _ = config.voxel_size
        stride = config.backbone.stride
        self.grid = BevGrid(config.bounds, (side_x * stride, side_y * stride), self.backbone.bev_size)

    def forward(self, batch: DetectionBatch) -> tuple[SparseTensor, tuple[CenterCells, ...]]:
        """The sparse cells and what each head group says at them."""
        cells = self.backbone(self.voxel_features(batch.points, batch.point_frame, batch.batch_size))
        return cells, self.head(cells)

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses, weighted: the total is their sum. Boxes centred out of bounds are ignored."""
        cells, groups = self(batch)
        return sum_losses(
            self._group_losses(
                outputs,
                cell_targets(
                    cells.coordinates,
                    batch.boxes,
                    batch.labels,
                    batch.box_frame,
                    labels,
                    self.grid,
                    velocities=batch.velocities,
                    overlap=self.config.gaussian_overlap,
                    min_radius=self.config.min_radius,
                ),
            )
            for outputs, labels in zip(groups, self.group_labels, strict=True)
        )

    def _group_losses(self, outputs: CenterCells, targets: CellTargets) -> dict[str, Tensor]:
        def at_objects(values: Tensor | None) -> Tensor | None:
            return None if values is None else gather_rows(values, targets.row).float()

        code = gather_rows(outputs.code(), targets.row).float()
        predicted = AtObjects(code, at_objects(outputs.iou), at_objects(outputs.velocity))
        return head_losses(outputs.heatmap, predicted, targets, self.grid, self.config.loss)

    @torch.no_grad()
    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        cells, groups = self(batch)
        found: list[list[Detections]] = [[] for _ in range(batch.batch_size)]
        with torch.autocast(cells.device.type, enabled=False):
            for outputs, labels in zip(groups, self.group_labels, strict=True):
                scores = self._scores(cells, outputs)
                for frame, detections in enumerate(found):
                    rows = (cells.coordinates[:, 0] == frame).nonzero()[:, 0]
                    detections.append(self._decode(cells.coordinates, outputs, scores, rows, labels))
        return [Detections.concatenate(parts) for parts in found]

    def _scores(self, cells: SparseTensor, outputs: CenterCells) -> Tensor:
        """(N, K) in [0, 1]; with `peaks_only` 0 where a neighbour scores higher."""
        scores = outputs.heatmap.float().sigmoid()
        if self.config.peaks_only:
            around = cells.sites.submanifold((3, 3, 1), (1, 1, 1))
            highest = max_pool(cells.replace(scores), around, cells.sites).features
            scores = torch.where(scores == highest, scores, 0.0)
        return scores

    def _decode(
        self, coordinates: Tensor, outputs: CenterCells, scores: Tensor, rows: Tensor, labels: tuple[int, ...]
    ) -> Detections:
        """One group in one frame."""
        score, channel, index = best_candidates(scores[rows].T, self.config.decode)
        row = rows[index]
        cell = coordinates[row, 1:3].long()
        predicted = Predicted(
            cell=cell,
            code=outputs.code()[row].float(),
            iou=None if outputs.iou is None else outputs.iou[row, 0].float(),
            velocity=None if outputs.velocity is None else outputs.velocity[row].float(),
            query=self.grid.middles(cell),
        )
        return finish(score, channel, predicted, labels, self.grid, self.config.decode)
