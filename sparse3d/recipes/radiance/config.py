"""Everything that decides the reconstruction of a radiance field, in one tree: the schema of
`configs/radiance/*.yaml`."""

from dataclasses import dataclass
from typing import Literal

from sparse3d.data.structure_from_motion import StructureFromMotionConfig
from sparse3d.engine.hooks import CheckpointConfig
from sparse3d.engine.loop import TrainConfig
from sparse3d.engine.optim import AdamWConfig, SelectiveAdamConfig
from sparse3d.engine.schedule import ConstantConfig, CosineConfig, LevelsConfig
from sparse3d.fields.background import LearnedBackgroundConfig
from sparse3d.fields.build import FieldConfig
from sparse3d.fields.depth_priors import (
    DepthRankingConfig,
    MetricDepthConfig,
    ScenePointsConfig,
    UnseenViewsConfig,
)
from sparse3d.fields.distillation import DistillationConfig
from sparse3d.fields.pose_refinement import PoseRefinementConfig
from sparse3d.fields.priors import (
    DistortionConfig,
    OcclusionConfig,
    OpacityEntropyConfig,
    SilhouetteConfig,
    SparsityConfig,
)
from sparse3d.fields.voxel_field import VoxelFieldConfig
from sparse3d.recipes.detection_config import LogConfig

Vector = tuple[float, float, float]

BACKGROUNDS: dict[str, Vector] = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}


@dataclass(frozen=True)
class PhotosConfig:
    """Posed photos, and which of them are for what (`sparse3d.data.photos.open_photos`)."""

    root: str = "data/photos"
    format: str | None = None  # found out from the files
    scale: float = 1.0  # of the photos' full size
    views: int | None = None  # K of the few-view protocol
    split: str = "train"
    # "cameras": model.space.low and .side are found from where the cameras look or from the box of the files,
    # and of photos with alpha from what is opaque in them
    bounds: Literal["config", "cameras"] = "cameras"
    # behind photos with alpha and behind the field; auto: what the files say, else white
    background: Literal["auto", "white", "black", "grey"] = "auto"
    depth: str = ""  # a folder of depth maps for priors and evaluation, named as the photos
    depth_unit: float = 1e-3  # metres a step of those
    # "colmap": found from the photos alone by structure from motion (extra `sfm`), whatever the files say
    poses: Literal["files", "colmap"] = "files"
    motion: StructureFromMotionConfig = StructureFromMotionConfig()
    cache_dir: str = ""  # of the pixels and of poses that were found; beside the photos where it is empty

    def background_color(self, known: Vector | None) -> Vector:
        """In [0, 1]; `known` is the one that the files name, if they do."""
        if self.background == "auto":
            return known or BACKGROUNDS["white"]
        return BACKGROUNDS[self.background]


@dataclass(frozen=True)
class LevelConfig:
    """What a batch of a level is."""

    pixels: int = 4096  # a batch
    rays_per_side: int = 1  # a pixel is the mean of rays_per_side^2 rays

    def __post_init__(self):
        if min(self.pixels, self.rays_per_side) < 1:
            raise ValueError(f"pixels and rays_per_side must be at least 1, got {self}")


@dataclass(frozen=True)
class RefineConfig:
    """The levels of a training, which begin where those of the schedule do, and how a voxel field follows
    what it finds: it is split where a level begins, as the planes of a low-rank field are."""

    levels: tuple[LevelConfig, ...] = (LevelConfig(4096, 1), LevelConfig(2048, 2))
    min_photos: int = 1  # voxels that fewer of them show are dropped at the start
    prune_every: int = 100  # steps
    prune_alpha: float = 0.01  # voxels with less, a step long, are dropped


@dataclass(frozen=True)
class RadianceLossConfig:
    """What is minimised, beside the field's own terms: the error of colours, summed over channels, mean over
    pixels."""

    color: Literal["squared", "absolute"] = "squared"


@dataclass(frozen=True)
class PriorsConfig:
    """What is assumed of a scene beside what its photos show; each one is left out where it is null."""

    occlusion: OcclusionConfig | None = None  # nothing right before the lens
    distortion: DistortionConfig | None = None  # a ray meets one thing
    sparsity: SparsityConfig | None = None  # space is empty
    opacity_entropy: OpacityEntropyConfig | None = None  # a ray is stopped or gets through
    silhouette: SilhouetteConfig | None = None  # opacities as those of the photos
    ranking: DepthRankingConfig | None = None  # order and jumps of depth maps of any scale
    depth: MetricDepthConfig | None = None  # depth maps in metres
    points: ScenePointsConfig | None = None  # of structure from motion
    unseen: UnseenViewsConfig | None = None  # smooth depth in views that nobody took


@dataclass(frozen=True)
class RadianceEvaluationConfig:
    """Which photos the field is judged on, and how they are rendered."""

    split: str = "test"
    rays_per_side: int = 2
    chunk: int = 1 << 15  # rays at once
    lpips: tuple[str, ...] = ()  # files of weights: the classifier's (alexnet) and the linear ones, or both


@dataclass(frozen=True)
class RadianceConfig:
    """A radiance field, its photos and its training."""

    task: Literal["radiance"] = "radiance"
    model: FieldConfig = VoxelFieldConfig()
    data: PhotosConfig = PhotosConfig()
    refine: RefineConfig = RefineConfig()
    loss: RadianceLossConfig = RadianceLossConfig()
    # auto: the preset of few views where there are FEW photos or fewer; else none, or the distortion alone of
    # a space with a contraction
    priors: Literal["auto", "none"] | PriorsConfig = "auto"
    # behind the field: the colour that `data.background` names, or one that is learned
    background: Literal["data", "learned"] | LearnedBackgroundConfig = "data"
    pose_refinement: PoseRefinementConfig = PoseRefinementConfig()
    # a trained field in the place of the photos: `data` are then its own, and its cube is the field's
    distillation: DistillationConfig | None = None
    optimizer: SelectiveAdamConfig | AdamWConfig = SelectiveAdamConfig()
    schedule: LevelsConfig | CosineConfig | ConstantConfig = LevelsConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: RadianceEvaluationConfig = RadianceEvaluationConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self):
        begins = len(self.schedule.begins) if isinstance(self.schedule, LevelsConfig) else 1
        if begins != len(self.refine.levels):
            raise ValueError(
                f"schedule has {begins} levels and refine.levels {len(self.refine.levels)}; write as many"
            )
        if self.distillation is not None and self.pose_refinement.enabled:
            raise ValueError("distillation has no photos whose poses could be refined")
        if self.distillation is not None and self.background != "data":
            raise ValueError("distillation has no photos whose background could be learned")
        if self.train.steps is None:
            raise ValueError("train.steps must be given: a field is trained for steps, not for epochs")
