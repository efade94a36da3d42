"""Everything that decides a detection run, in one tree: the schema of `configs/detection/*.yaml`."""

from dataclasses import dataclass, replace
from typing import Literal

from sparse3d.data.augment import AugmentConfig
from sparse3d.data.kitti import KittiDatasetConfig
from sparse3d.data.minidrive import MinidriveConfig
from sparse3d.data.open import DataConfig
from sparse3d.data.sequences import SequenceConfig
from sparse3d.engine.hooks import CheckpointConfig
from sparse3d.engine.loop import TrainConfig
from sparse3d.engine.optim import AdamWConfig, SGDConfig
from sparse3d.engine.schedule import ConstantConfig, CosineConfig, MultiStepConfig, OneCycleConfig
from sparse3d.models.centerpoint import CenterPointConfig
from sparse3d.models.detectors import DetectorConfig
from sparse3d.recipes.detection_metrics import Metric, metrics_of_data


@dataclass(frozen=True)
class GenerateConfig:
    """Scenes to generate where `data.root` does not exist yet (or is an unfinished minidrive folder)."""

    scenes: int = 400
    seed: int = 0
    val_fraction: float = 0.2  # share of the scenes in the split "val"
    simulator: MinidriveConfig = MinidriveConfig()


@dataclass(frozen=True)
class LoaderConfig:
    """How training frames become batches."""

    batch_size: int = 4  # frames a process and step
    workers: int = 2  # processes that read and augment; 0: the training process itself
    split: str = "train"
    balance: Literal["none", "classes"] = "none"  # classes: each is in as many frames of an epoch (CBGS)
    drop_last: bool = True  # of an epoch, what fills no whole step; false: a smaller last step

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")


@dataclass(frozen=True)
class EvaluationConfig:
    """When and on what the model is judged while it trains."""

    split: str = "val"
    every_epochs: int = 5
    batch_size: int = 4
    metrics: tuple[Metric, ...] = ()  # the first one is what training watches; none: those of the data set

    def __post_init__(self):
        for name in ("every_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class LogConfig:
    """What is told while training."""

    every: int = 10  # steps between lines of metrics.jsonl and of the progress report
    tensorboard: bool = False  # also write TensorBoard files into the run (extra `tensorboard`)

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every must be at least 1 step, got {self.every}")


@dataclass(frozen=True)
class DetectionConfig:
    """A detector, its data and its training."""

    task: Literal["detection"] = "detection"
    model: DetectorConfig = CenterPointConfig()
    data: DataConfig = KittiDatasetConfig()  # bounds null: those of the model
    generate: GenerateConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    optimizer: AdamWConfig | SGDConfig = AdamWConfig()
    schedule: OneCycleConfig | CosineConfig | ConstantConfig | MultiStepConfig = OneCycleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self):
        if self.data.classes != self.model.classes:
            raise ValueError(
                f"data.classes {list(self.data.classes)} are not model.classes {list(self.model.classes)}; "
                "a label is a position in both, write the same list"
            )
        if isinstance(self.data, SequenceConfig) and self.model.point_channels != self.data.point_channels:
            raise ValueError(
                f"model.point_channels is {self.model.point_channels}, but points of the data have "
                f"{self.data.point_channels} values with data.sweeps={self.data.sweeps}"
            )
        metrics_of_data(self.data.kind, self.evaluation.metrics)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What judges the model, the most important first."""
        return metrics_of_data(self.data.kind, self.evaluation.metrics)

    @property
    def dataset(self) -> DataConfig:
        """The data as this model needs them: cropped to its bounds unless others are given."""
        return self.data if self.data.bounds is not None else replace(self.data, bounds=self.model.bounds)
