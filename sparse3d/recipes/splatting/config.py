"""Everything that decides the training of a cloud of Gaussians, in one tree: the schema of
`configs/splats/*.yaml`."""

from dataclasses import dataclass, field
from typing import Literal

from sparse3d.engine.hooks import CheckpointConfig
from sparse3d.engine.loop import TrainConfig
from sparse3d.engine.optim import SelectiveAdamConfig
from sparse3d.engine.schedule import ConstantConfig, CosineConfig, LevelsConfig
from sparse3d.gaussians.appearance import AppearanceConfig, ExposureConfig
from sparse3d.gaussians.few_views import (
    CoRegularizationConfig,
    FloatersConfig,
    NearLensConfig,
    OpacityDropConfig,
    SmoothUnseenConfig,
)
from sparse3d.gaussians.losses import (
    AlphaConfig,
    DepthConfig,
    OpacityConfig,
    RelativeDepthConfig,
    ScaleConfig,
)
from sparse3d.gaussians.render import SplatConfig
from sparse3d.gaussians.strategies import MCMCStrategy, StrategyConfig
from sparse3d.recipes.detection_config import LogConfig
from sparse3d.recipes.radiance.config import PhotosConfig


@dataclass(frozen=True)
class StartConfig:
    """The cloud that a training begins with."""

    shape: Literal["gaussians", "surfels"] = "gaussians"
    # points: those of structure from motion, or of `source`; depth: of the photos' depth maps; mesh, field,
    # cloud: of `source`; auto: points where the files have 100 or more, else random
    kind: Literal["auto", "points", "random", "depth", "mesh", "field", "cloud"] = "auto"
    # a file of points (.ply, .pcd, .bin, .npy: a LiDAR's), of triangles or of splats, or the folder of a run
    # that trained a field
    source: str = ""
    count: int = 10_000  # Gaussians; of points and depth at most as many, 0 for all; of a cloud all
    opacity: float = 0.1
    scale: float = 1.0  # of the distance between neighbours
    sh_degree: int = 3

    def __post_init__(self):
        if not 0 < self.opacity < 1 or not self.scale > 0 or self.count < 0:
            raise ValueError(f"opacity must lie in (0, 1), scale above 0 and count not below 0, got {self}")
        if bool(self.source) != (self.kind in ("mesh", "field", "cloud")) and self.kind != "points":
            needs = "needs a source" if not self.source else "takes none"
            raise ValueError(f"start.kind={self.kind} {needs}, start.source is {self.source!r}")
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"sh_degree must lie in 0 .. 4, got {self.sh_degree}")


@dataclass(frozen=True)
class SurfaceConfig:
    """What makes surfels lie in a surface (2DGS, arXiv 2403.17888, Eq. 13 and 14): the mean distortion of a
    ray, and 1 minus the cosine between blended normals and those of the depth."""

    distortion: float = 100.0  # weight; the paper has 1000 for bounded scenes, 100 for others
    normal: float = 0.05  # weight
    distortion_begin: float = 0.1  # part of the training before it
    normal_begin: float = 0.25  # likewise

    def __post_init__(self):
        if min(self.distortion, self.normal) < 0:
            raise ValueError(f"weights must not be below 0, got {self}")


@dataclass(frozen=True)
class SplatLossConfig:
    """What is minimised: weights of terms that are means over the pixels of a photo, or what they are."""

    absolute: float = 0.8  # of colours
    squared: float = 0.0  # of colours; PSNR is a matter of this alone
    similarity: float = 0.2  # 1 - SSIM (`sparse3d_ops.structural_similarity`)
    alpha: AlphaConfig | None = None
    opacity: OpacityConfig | None = None
    scale: ScaleConfig | None = None
    surface: SurfaceConfig | None = None
    depth: DepthConfig | None = None  # of depth maps in metres
    relative_depth: RelativeDepthConfig | None = None  # of depth maps of any scale


@dataclass(frozen=True)
class SplatPriorsConfig:
    """What is assumed where few photos see a scene; each one is left out where it is null."""

    drop: OpacityDropConfig | None = None
    floaters: FloatersConfig | None = None
    near_lens: NearLensConfig | None = None
    unseen: SmoothUnseenConfig | None = None
    co: CoRegularizationConfig | None = None


@dataclass(frozen=True)
class SplatEvaluationConfig:
    """Which photos the cloud is judged on."""

    split: str = "test"
    lpips: tuple[str, ...] = ()  # files of weights: the classifier's (alexnet) and the linear ones, or both


@dataclass(frozen=True)
class SplattingConfig:
    """Gaussians, their photos and their training."""

    task: Literal["splatting"] = "splatting"
    data: PhotosConfig = PhotosConfig()
    photos_in_memory: float = 512.0  # megabytes
    start: StartConfig = StartConfig()
    drawing: SplatConfig = SplatConfig()
    strategy: StrategyConfig = MCMCStrategy()
    sh_every: int = 1000  # steps, after each of which harmonics of one more degree are used
    loss: SplatLossConfig = SplatLossConfig()
    # auto: the preset of few views where there are 12 photos or fewer, else none
    priors: Literal["auto", "none"] | SplatPriorsConfig = "auto"
    appearance: ExposureConfig | AppearanceConfig | None = None  # of each photo
    # `means` is multiplied by the reach of the scene, metres
    optimizer: SelectiveAdamConfig = SelectiveAdamConfig(
        lr=1.0,
        betas=(0.9, 0.99),
        eps=1e-15,
        factors={
            "means": 1.6e-4,
            "scales": 5e-3,
            "quats": 1e-3,
            "opacities": 5e-2,
            "sh0": 2.5e-3,
            "shN": 1.25e-4,
        },
    )
    schedule: LevelsConfig | CosineConfig | ConstantConfig = LevelsConfig(decay=0.01)
    train: TrainConfig = TrainConfig(steps=30_000, clip_grad_norm=None)
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: SplatEvaluationConfig = SplatEvaluationConfig()
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self):
        if self.train.steps is None:
            raise ValueError("train.steps must be given: Gaussians are trained for steps, not for epochs")
        if self.sh_every < 1:
            raise ValueError(f"sh_every must be at least 1, got {self.sh_every}")
