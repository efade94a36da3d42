"""Voxel R-CNN: SECOND proposes, and what its sparse backbone saw within each proposal refines it.

    points -> voxels -> sparse 3D backbone -> BEV map -> 2D backbone -> anchor head -> proposals
                              |                                                            |
                              +------- stages --------> voxel RoI pooling <----------------+
                                                              |
                                                          RoI head -> scores and better boxes

Deng et al., "Voxel R-CNN: Towards High Performance Voxel-based 3D Object Detection" (arXiv 2012.15712). Where
we differ: every point of a voxel counts, not the first five; see also `voxel_roi_pool` and `roi_sampling`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.anchor_head import AnchorHead, AnchorHeadConfig, AnchorMaps, suppress
from sparse3d.models.anchors import check_classes
from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig
from sparse3d.models.center_code import BevGrid
from sparse3d.models.roi_head import RoiHead, RoiHeadConfig, roi_losses
from sparse3d.models.roi_sampling import RoiSamplingConfig, sample_rois
from sparse3d.models.rois import Rois, decode
from sparse3d.models.voxel_backbone import (
    VoxelBackbone8xConfig,
    VoxelBackboneWithStages,
    VoxelResBackbone8xConfig,
)
from sparse3d.models.voxel_features import Bounds, MeanVoxelFeaturesConfig, VoxelFeatures, VoxelFeaturesConfig
from sparse3d.models.voxel_roi_pool import VoxelRoiPool, VoxelRoiPoolConfig
from sparse3d.tensor import SparseTensor


@dataclass(frozen=True)
class ProposalConfig:
    """Which boxes of the anchor head become RoIs; classes are not told apart."""

    pre: int  # best anchors of a frame that enter the suppression
    post: int  # boxes that leave it
    threshold: float  # rotated BEV IoU


@dataclass(frozen=True)
class RefinedDecodeConfig:
    score_threshold: float = 0.3
    nms_threshold: float = 0.1  # rotated BEV IoU
    nms_over: Literal["all", "class"] = "all"  # suppress across the classes, or class by class
    nms_post: int = 500


@dataclass(frozen=True)
class VoxelRCNNConfig:
    """The defaults are the published ones for KITTI, with the anchors of its three classes."""

    kind: Literal["voxel_rcnn"] = "voxel_rcnn"
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # labels are indices into this list
    bounds: Bounds = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)  # x_min, y_min, z_min, x_max, y_max, z_max, metres
    voxel_size: tuple[float, float, float] = (0.05, 0.05, 0.1)  # metres
    point_channels: int = 4  # x, y, z, intensity
    voxel_features: VoxelFeaturesConfig = MeanVoxelFeaturesConfig()
    backbone: VoxelBackbone8xConfig | VoxelResBackbone8xConfig = VoxelBackbone8xConfig()
    bev: BevBackboneConfig = BevBackboneConfig(filters=(64, 128), upsample_filters=(128, 128))
    head: AnchorHeadConfig = AnchorHeadConfig()
    train_proposals: ProposalConfig = ProposalConfig(pre=9000, post=512, threshold=0.8)
    test_proposals: ProposalConfig = ProposalConfig(pre=2048, post=100, threshold=0.7)
    sampling: RoiSamplingConfig = RoiSamplingConfig()
    pool: VoxelRoiPoolConfig = VoxelRoiPoolConfig()
    roi_head: RoiHeadConfig = RoiHeadConfig()
    decode: RefinedDecodeConfig = RefinedDecodeConfig()

    def __post_init__(self) -> None:
        check_classes(self.head.anchors, self.classes)


class FirstStage(NamedTuple):
    """What the second stage works with: the backbone's stages, finest first, and the anchor head's maps."""

    stages: list[SparseTensor]
    maps: AnchorMaps


class VoxelRCNN(nn.Module):
    """DetectionBatch -> first stage (`forward`), losses (`loss`) or detections (`predict`)."""

    def __init__(self, config: VoxelRCNNConfig):
        super().__init__()
        self.config = config
        self.voxel_features = VoxelFeatures(
            config.point_channels, config.voxel_size, config.bounds, config.voxel_features
        )
        self.backbone = VoxelBackboneWithStages(
            self.voxel_features.out_channels, self.voxel_features.shape, config.backbone
        )
        self.bev = BevBackbone(self.backbone.out_channels, config.bev)
        grid = BevGrid.over(
            config.bounds, config.voxel_size, config.backbone.stride, self.backbone.bev_size, config.bev
        )
        self.head = AnchorHead(config.bev.out_channels, grid, config.head)
        self.pool = VoxelRoiPool(config.backbone.channels, config.voxel_size, config.bounds, config.pool)
        self.roi_head = RoiHead(config.pool.out_channels, config.roi_head)

    def forward(self, batch: DetectionBatch) -> FirstStage:
        voxels = self.voxel_features(batch.points, batch.point_frame, batch.batch_size)
        stages, bev = self.backbone(voxels)
        return FirstStage(stages, self.head(self.bev(bev)))

    @torch.no_grad()
    def propose(self, maps: AnchorMaps, config: ProposalConfig) -> Rois:
        """The RoIs of every frame. No gradient: the anchor head learns from its own losses."""
        found = [self.head.candidates(maps, frame, config.pre) for frame in range(len(maps.scores))]
        kept = [suppress(frame, config.threshold, "all", config.post) for frame in found]
        return Rois.of(kept, like=maps.scores)

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses of both stages, weighted: the total is their sum. Boxes centred out of bounds
        are ignored."""
        stages, maps = self(batch)
        rois = self.propose(maps, self.config.train_proposals)
        targets = sample_rois(rois, batch, self.head.grid, self.config.sampling)
        refined = self.roi_head(self.pool(targets.rois, stages))
        second = roi_losses(refined, targets, self.config.sampling, self.config.roi_head)
        return self.head.loss(maps, batch) | second

    @torch.no_grad()
    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        stages, maps = self(batch)
        rois = self.propose(maps, self.config.test_proposals)
        refined = self.roi_head(self.pool(rois, stages))
        boxes, scores = decode(refined.codes.float(), rois.boxes), refined.scores.float().sigmoid()
        config, found = self.config.decode, []
        for frame in range(batch.batch_size):
            kept = rois.detections(boxes, scores, frame)
            kept = kept.select((kept.scores > config.score_threshold) & kept.boxes.isfinite().all(dim=1))
            found.append(suppress(kept, config.nms_threshold, config.nms_over, config.nms_post))
        return found
