"""Everything that decides a segmentation run, in one tree: the schema of `configs/segmentation/*.yaml`."""

from dataclasses import dataclass
from typing import Literal

from sparse3d.data.segmentation import LabelledKittiConfig, SegmentationDataConfig, SemanticKittiConfig
from sparse3d.data.segmentation_augment import SegmentationAugmentConfig
from sparse3d.engine.hooks import CheckpointConfig
from sparse3d.engine.loop import TrainConfig
from sparse3d.engine.optim import AdamWConfig, SGDConfig
from sparse3d.engine.schedule import ConstantConfig, CosineConfig, MultiStepConfig, OneCycleConfig
from sparse3d.models.minkunet import MinkUNetConfig
from sparse3d.models.segmenters import SegmenterConfig
from sparse3d.recipes.detection_config import EvaluationConfig, GenerateConfig, LoaderConfig, LogConfig


@dataclass(frozen=True)
class SegmentationConfig:
    """A segmenter, its data and its training."""

    task: Literal["segmentation"] = "segmentation"
    model: SegmenterConfig = MinkUNetConfig(classes=SemanticKittiConfig.classes)
    data: SegmentationDataConfig = SemanticKittiConfig()
    generate: GenerateConfig | None = None
    augment: SegmentationAugmentConfig = SegmentationAugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    optimizer: AdamWConfig | SGDConfig = AdamWConfig()
    schedule: OneCycleConfig | CosineConfig | ConstantConfig | MultiStepConfig = OneCycleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self):
        classes = self.model.classes
        if self.data.classes != classes:
            raise ValueError(
                f"data.classes {list(self.data.classes)} are not model.classes {list(classes)}; "
                "a label is a position in both, write the same list"
            )
        weights = self.model.loss.class_weights
        if weights and len(weights) != len(classes):
            raise ValueError(f"model.loss.class_weights has {len(weights)} values for {len(classes)} classes")
        if self.generate is not None and not isinstance(self.data, LabelledKittiConfig):
            raise ValueError(
                "generate makes a folder in KITTI's layout: write data.kind: kitti, or no generate"
            )
