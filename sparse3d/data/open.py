"""The data set that a config asks for."""

from sparse3d.data.augment import AugmentConfig
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.data.labelled import LabelledFrames
from sparse3d.data.nuscenes import NuscenesConfig, NuscenesDataset

DataConfig = KittiDatasetConfig | NuscenesConfig


def open_dataset(
    config: DataConfig, split: str, augment: AugmentConfig | None = None, epochs: int | None = None
) -> LabelledFrames[DataConfig]:
    """Frames of a split, augmented for a training of `epochs` where `augment` is given."""
    match config:
        case KittiDatasetConfig():
            return KittiDataset(config, split, augment, epochs)
        case NuscenesConfig():
            return NuscenesDataset(config, split, augment, epochs)
