"""Gaussians from posed photos, from config to judged pictures: train, evaluate, load."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from sparse3d.data.photo_checks import check_views
from sparse3d.data.photos import PosedPhotos
from sparse3d.data.whole_photos import WholePhotoLoader, undistorted
from sparse3d.engine import distributed
from sparse3d.engine.checkpoint import read_checkpoint
from sparse3d.engine.loop import Hook, Trainer
from sparse3d.engine.optim import SelectiveAdamConfig
from sparse3d.gaussians.appearance import AppearanceEmbedding, Exposure, ExposureConfig
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.model import SplatModel
from sparse3d.gaussians.render import SplatView, render
from sparse3d.geometry.cameras import Camera
from sparse3d.nn.threads import one_kernel_thread
from sparse3d.recipes.radiance.config import Vector
from sparse3d.recipes.radiance.judge import Outcome, Progress, Shown, judge_views, write_views
from sparse3d.recipes.radiance.reconstruct import photos_of_split
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.splatting.config import SplatPriorsConfig, SplattingConfig
from sparse3d.recipes.splatting.hooks import Densify
from sparse3d.recipes.splatting.model import SplatTraining
from sparse3d.recipes.splatting.preset import decide_priors
from sparse3d.recipes.splatting.start import Cube, cameras_between, first_cloud, scene_cube, scene_scale
from sparse3d.recipes.training import TrainOutcome, begin_alone, keeping, one_process, train_alone

LEAST_STEPS = 500  # of an epoch, after which a checkpoint is written
# Pixels of a photo below which a second thread makes a step slower: 2.7 ms on one and 2.8 to 5.0 on two at
# 32 x 32, 3.8 and 3.6 to 5.6 at 64 x 64, as the second one is awake or asleep between kernels.
FEW_PIXELS = 1 << 12


def train(
    config: SplattingConfig,
    out: str | Path,
    resume: bool = False,
    *,
    if_begun: bool = False,
    progress_of_data: Progress | None = None,
    photos: PosedPhotos | None = None,
    extra_hooks: Sequence[Hook] = (),
) -> TrainOutcome:
    """Train into the run folder `out`; `resume` continues the run in it, bit for bit. In one process.
    `photos` are those that the config names, where somebody has opened them before."""
    run = RunFolder(out, config.checkpoint.keep)
    with one_process(config) as device:
        photos = photos or photos_of_split(config.data, config.data.split)
        check_views(photos)
        config = decide_priors(config, photos)
        begin_alone(config, run, resume, if_begun)
        background = config.data.background_color(photos.capture.background)
        reach, cube = scene_scale(photos), cache(lambda: scene_cube(photos))
        trainer = Trainer(
            SplatTraining(
                _clouds(config, photos, reach, cube),
                config,
                background,
                _unseen(config, photos, cube),
                _appearance(config, photos),
            ),
            WholePhotoLoader(photos, background, config.train.seed, config.photos_in_memory, LEAST_STEPS),
            config.train,
            _in_scene(config, reach),
            config.schedule,
            hooks=[Densify(config), *keeping(config, run, "psnr"), *extra_hooks],
            device=device,
        )
        few = int(photos.cameras.size.prod(1).max()) < FEW_PIXELS
        with one_kernel_thread() if few else nullcontext():
            return train_alone(trainer, run)


def _clouds(
    config: SplattingConfig, photos: PosedPhotos, reach: float, cube: Callable[[], Cube]
) -> list[SplatModel]:
    """One, or two that began differently."""
    two = isinstance(config.priors, SplatPriorsConfig) and config.priors.co is not None
    seeds = [config.train.seed, config.train.seed + 1][: 1 + two]
    return [SplatModel(first_cloud(config.start, photos, seed, cube), reach, seed) for seed in seeds]


def _appearance(config: SplattingConfig, photos: PosedPhotos) -> Exposure | AppearanceEmbedding | None:
    if config.appearance is None:
        return None
    if isinstance(config.appearance, ExposureConfig):
        return Exposure(len(photos))
    return AppearanceEmbedding(len(photos), config.appearance)


def _unseen(
    config: SplattingConfig, photos: PosedPhotos, cube: Callable[[], Cube]
) -> Callable[[int], Camera] | None:
    """Cameras that nobody stood at, where a prior asks for them."""
    priors = config.priors
    if not isinstance(priors, SplatPriorsConfig) or not (priors.unseen or priors.co):
        return None
    jitter = 0.0 if priors.unseen is None else priors.unseen.jitter
    return cameras_between(photos, cube(), config.train.seed, jitter)


def _in_scene(config: SplattingConfig, reach: float) -> SelectiveAdamConfig:
    """The rate of the means is given in parts of the scene; that of the photos' appearance is its own."""
    optimizer = config.optimizer
    factors = optimizer.factors | {"means": optimizer.factors.get("means", 1.0) * reach}
    if config.appearance is not None:
        own = config.appearance.lr / optimizer.lr
        parts = (
            ("matrices",) if isinstance(config.appearance, ExposureConfig) else ("codes", "weight", "bias")
        )
        factors |= dict.fromkeys(parts, own)
    return replace(optimizer, factors=factors)


def evaluate(
    run: str | Path,
    split: str | None = None,
    checkpoint: str = "last",
    *,
    device: str | None = None,
    data_root: str | None = None,
    progress: Progress | None = None,
    progress_of_poses: Progress | None = None,
) -> Outcome:
    """`judge` a split of the run's photos, or of those in `data_root`."""
    loaded = load_cloud(run, checkpoint, device)
    data = loaded.config.data if data_root is None else replace(loaded.config.data, root=data_root, depth="")
    photos = photos_of_split(data, split or loaded.config.evaluation.split)
    return judge(loaded, run, photos, progress=progress)


def judge(
    loaded: "LoadedCloud",
    run: str | Path,
    photos: PosedPhotos,
    *,
    progress: Progress | None = None,
    progress_of_poses: Progress | None = None,
) -> Outcome:
    """Draw photos that the cloud has not seen, as pinhole cameras see them; writes
    `evaluation/<split>/metrics.json` and a picture of each: the photo, the drawing, its error and depth."""
    config = loaded.config
    background = config.data.background_color(photos.capture.background)
    wanted = (
        (name, *undistorted(photos.photo(row), photos.cameras[row])) for row, name in enumerate(photos.names)
    )

    def show(camera: Camera) -> Shown:
        return show_cloud(loaded, camera, background)

    views = judge_views(show, wanted, len(photos), background, config.evaluation.lpips, progress)
    folder = RunFolder(run).evaluation / photos.split
    return write_views(folder, loaded.checkpoint, views, gaussians=len(loaded.cloud))


@torch.no_grad()
def show_cloud(loaded: "LoadedCloud", camera: Camera, background: Vector) -> Shown:
    """What a camera sees of a trained cloud."""
    cloud = loaded.cloud
    behind = torch.tensor(background).to(cloud.means)
    draw = render_geometry if cloud.surfels else render
    seen = draw(cloud, SplatView.of(camera, cloud.means), behind, loaded.config.drawing)
    return Shown(*(part.cpu().numpy() for part in (seen.color, seen.depth, seen.alpha)))


@dataclass(frozen=True)
class LoadedCloud:
    """A trained cloud, with the config that it was trained with."""

    config: SplattingConfig
    cloud: GaussianCloud
    checkpoint: Path


def load_cloud(run: str | Path, checkpoint: str = "last", device: str | None = None) -> LoadedCloud:
    """The Gaussians of a run, ready to draw."""
    folder = RunFolder(run)
    config = folder.read_config(SplattingConfig)
    path = folder.checkpoints.find(checkpoint)
    weights = read_checkpoint(path).part("model")
    parts = {k.removeprefix("splats."): v for k, v in weights.items() if k.startswith("splats.")}
    with distributed.process_group(device or config.train.device) as place:
        return LoadedCloud(config, GaussianCloud.of(parts).to(place), path)
