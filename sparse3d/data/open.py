"""The data set that a config asks for."""

from sparse3d.data.argoverse2 import Argoverse2Config, Argoverse2Dataset
from sparse3d.data.augment import AugmentConfig
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.data.kitti_raw import KittiRawConfig, KittiRawDataset
from sparse3d.data.labelled import LabelledFrames
from sparse3d.data.nuscenes import NuscenesConfig, NuscenesDataset
from sparse3d.data.waymo import WaymoConfig, WaymoDataset

DataConfig = KittiDatasetConfig | NuscenesConfig | Argoverse2Config | WaymoConfig | KittiRawConfig


def open_dataset(
    config: DataConfig, split: str, augment: AugmentConfig | None = None, epochs: int | None = None
) -> LabelledFrames[DataConfig]:
    """Frames of a split, augmented for a training of `epochs` where `augment` is given."""
    match config:
        case KittiDatasetConfig():
            return KittiDataset(config, split, augment, epochs)
        case NuscenesConfig():
            return NuscenesDataset(config, split, augment, epochs)
        case Argoverse2Config():
            return Argoverse2Dataset(config, split, augment, epochs)
        case WaymoConfig():
            return WaymoDataset(config, split, augment, epochs)
        case KittiRawConfig():
            return KittiRawDataset(config, split, augment, epochs)
