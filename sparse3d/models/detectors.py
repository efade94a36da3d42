"""Every detector there is: what they have in common, and the one that a config asks for."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.centerpoint import CenterPoint, CenterPointConfig
from sparse3d.models.centerpoint_two_stage import CenterPointTwoStage, CenterPointTwoStageConfig
from sparse3d.models.dsvt import DSVT, DSVTConfig
from sparse3d.models.pointpillars import PointPillars, PointPillarsConfig
from sparse3d.models.second import Second, SecondConfig
from sparse3d.models.voxel_rcnn import VoxelRCNN, VoxelRCNNConfig
from sparse3d.models.voxelnext import VoxelNeXt, VoxelNeXtConfig

Bounds = tuple[float, float, float, float, float, float]

DetectorConfig = (
    CenterPointConfig
    | CenterPointTwoStageConfig
    | SecondConfig
    | PointPillarsConfig
    | VoxelRCNNConfig
    | DSVTConfig
    | VoxelNeXtConfig
)


@runtime_checkable
class DetectorModel(Protocol):
    """What training and prediction need of a detector, which is an nn.Module too. Its config has `classes`
    (names; labels are positions in them) and `bounds` (x, y, z minima, then maxima, metres)."""

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Named scalar losses; their sum is minimised."""
        ...

    def predict(self, batch: DetectionBatch) -> list[Detections]:
        """Detections of each frame, highest score first; call `eval()` before."""
        ...


def build_detector(config: DetectorConfig) -> nn.Module:
    """The network of a config, freshly initialised; it is a `DetectorModel`."""
    match config:
        case CenterPointTwoStageConfig():  # before the class that it extends
            return CenterPointTwoStage(config)
        case CenterPointConfig():
            return CenterPoint(config)
        case SecondConfig():
            return Second(config)
        case PointPillarsConfig():
            return PointPillars(config)
        case VoxelRCNNConfig():
            return VoxelRCNN(config)
        case DSVTConfig():
            return DSVT(config)
        case VoxelNeXtConfig():
            return VoxelNeXt(config)
