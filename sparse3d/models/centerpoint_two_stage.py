"""CenterPoint with its second stage: what the map says at five points of each box refines it.

    points -> voxels -> sparse 3D backbone -> BEV map -> 2D backbone -> centre head -> boxes
                                                              |                          |
                                                              +--> centre, four faces <--+
                                                                          |
                                                                      RoI head -> scores and better boxes

A face of a box seen from above projects to one point, so the map has nothing more to say of the box. A box
scores sqrt(Q1 Q2): by the heatmap (corrected by the IoU branch where there is one), and by the RoI head.

Yin, Zhou, Krähenbühl: "Center-based 3D Object Detection and Tracking" (arXiv 2006.11275), section 4.3. Where
we differ: both stages train together, from one loss.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.bev_sampling import sample_bev
from sparse3d.models.center_decode import decode_detections
from sparse3d.models.center_head import CenterHeadOutput
from sparse3d.models.centerpoint import CenterPoint, CenterPointConfig
from sparse3d.models.roi_head import RoiHead, RoiHeadConfig, roi_losses
from sparse3d.models.roi_sampling import RoiSamplingConfig, sample_rois
from sparse3d.models.rois import Rois, decode, five_points


@dataclass(frozen=True)
class CenterPointTwoStageConfig(CenterPointConfig):
    """The first stage is CenterPoint's; what `decode` leaves of its boxes are the RoIs."""

    kind: Literal["centerpoint_two_stage"] = "centerpoint_two_stage"  # pyright: ignore[reportIncompatibleVariableOverride]
    sampling: RoiSamplingConfig = RoiSamplingConfig()
    roi_head: RoiHeadConfig = RoiHeadConfig(box_beta=0.0, corner_weight=0.0)  # the code's L1 alone


class CenterPointTwoStage(CenterPoint):
    """DetectionBatch -> maps of the first stage (`forward`), losses (`loss`) or detections (`predict`)."""

    config: CenterPointTwoStageConfig

    def __init__(self, config: CenterPointTwoStageConfig):
        super().__init__(config)
        self.roi_head = RoiHead(5 * config.bev.out_channels, config.roi_head)

    @torch.no_grad()
    def propose(self, maps: CenterHeadOutput) -> Rois:
        """The RoIs of every frame. No gradient: the centre head learns from its own losses."""
        found = decode_detections(maps, self.group_labels, self.grid, self.config.decode)
        return Rois.of(found, like=maps.groups[0].heatmap)

    def features_of(self, rois: Rois, bev: Float[Tensor, "B C X Y"]) -> Float[Tensor, "R F"]:
        """What the map says at the five points of each RoI, side by side."""
        points = five_points(rois.boxes)[..., :2]
        frame = rois.frame.repeat_interleave(points.shape[1])
        sampled = sample_bev(bev, self.grid, points.reshape(-1, 2), frame)
        return sampled.reshape(len(points), points.shape[1] * bev.shape[1])

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses of both stages, weighted: the total is their sum. Boxes centred out of bounds
        are ignored."""
        bev = self.bev_map(batch)
        maps = self.head(bev)
        targets = sample_rois(self.propose(maps), batch, self.grid, self.config.sampling)
        refined = self.roi_head(self.features_of(targets.rois, bev))
        second = roi_losses(refined, targets, self.config.sampling, self.config.roi_head)
        return self.losses_of(maps, batch) | second

    @torch.no_grad()
    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first. Call `eval()` before: batch norm asks for it."""
        bev = self.bev_map(batch)
        rois = self.propose(self.head(bev))
        refined = self.roi_head(self.features_of(rois, bev))
        boxes = decode(refined.codes.float(), rois.boxes)
        scores = (rois.scores * refined.scores.float().sigmoid()).sqrt()
        found = [rois.detections(boxes, scores, frame) for frame in range(batch.batch_size)]
        return [frame.select(frame.boxes.isfinite().all(dim=1) & frame.scores.isfinite()) for frame in found]
