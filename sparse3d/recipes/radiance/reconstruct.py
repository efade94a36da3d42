"""Radiance fields from posed photos, or from another field that teaches them, from config to judged pictures:
train, evaluate, load."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from sparse3d.data.photo_checks import check_views
from sparse3d.data.photos import PosedPhotos, open_photos
from sparse3d.data.ray_loader import RayLoader
from sparse3d.data.structure_from_motion import Progress as StageProgress
from sparse3d.engine import distributed
from sparse3d.engine.checkpoint import load_weights, read_checkpoint
from sparse3d.engine.loop import Hook, Trainer
from sparse3d.fields.background import LearnedBackground
from sparse3d.fields.build import Field, FieldConfig, in_cube, in_frustum
from sparse3d.fields.depth_priors import MetricDepthConfig
from sparse3d.fields.pose_refinement import PoseRefinement
from sparse3d.geometry.cameras import Cameras
from sparse3d.recipes.radiance.batches import PixelLoader
from sparse3d.recipes.radiance.bounds import cube_in_view, cube_of_frustum, frustum_in_view
from sparse3d.recipes.radiance.config import PhotosConfig, PriorsConfig, RadianceConfig
from sparse3d.recipes.radiance.guides import GuideSource
from sparse3d.recipes.radiance.hooks import Advance, Refine
from sparse3d.recipes.radiance.hull import cube_around
from sparse3d.recipes.radiance.judge import Outcome, Progress, judge_field, write_views
from sparse3d.recipes.radiance.lessons import LessonLoader, TaughtModel
from sparse3d.recipes.radiance.model import FieldModel, fresh_background
from sparse3d.recipes.radiance.poses import refined, refinement, settled, write_poses
from sparse3d.recipes.radiance.preset import decide_priors
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.training import TrainOutcome, begin_alone, keeping, one_process, train_alone


def train(
    config: RadianceConfig,
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
        if config.distillation is None:
            source = _of_photos(config, photos)
        else:
            source = _of_teacher(config, run, device)
        config = source.config
        begin_alone(config, run, resume, if_begun)
        loader, model = source.build()
        trainer = Trainer(
            model,
            loader,
            config.train,
            config.optimizer,
            config.schedule,
            hooks=[
                Refine(config, loader, source.cameras),
                Advance(),
                *keeping(config, run, "psnr"),
                *extra_hooks,
            ],
            device=device,
        )
        return train_alone(trainer, run)


class _Source(NamedTuple):
    """What a field is trained on: the config with all that was decided, what makes the loader and the model
    (seed first), and the cameras of photos, None where there are none."""

    config: RadianceConfig
    build: Callable[[], tuple[PixelLoader | LessonLoader, FieldModel]]
    cameras: Cameras | None


def _of_photos(config: RadianceConfig, photos: PosedPhotos | None) -> _Source:
    data = config.data
    photos = photos or photos_of_split(data, data.split)
    check_views(photos)
    if data.bounds == "cameras":
        config = replace(config, model=_placed(config, photos))
    config = decide_priors(config, photos)
    priors = config.priors if isinstance(config.priors, PriorsConfig) else PriorsConfig()

    def build() -> tuple[PixelLoader, FieldModel]:
        level = config.refine.levels[0]
        rays = RayLoader(photos, level.pixels, seed=config.train.seed, cache_dir=data.cache_dir)
        background = data.background_color(photos.capture.background)
        loader = PixelLoader(rays, background, level, GuideSource(rays, priors, config.model.space))
        poses = refinement(config, len(photos))
        return loader, FieldModel(config.model, config.loss, priors, poses, fresh_background(config))

    return _Source(config, build, photos.cameras)


def _of_teacher(config: RadianceConfig, run: RunFolder, device: torch.device) -> _Source:
    """The teacher's cube and photos; of those no more than the cameras, where they are still there.
    ValueError where the teacher would be written over, or fills more than a cube."""
    distillation = config.distillation
    assert distillation is not None
    if Path(distillation.source).resolve() == run.path.resolve():
        raise ValueError(f"{run.path} is the teacher itself; name another folder for the student")
    loaded = load_field(distillation.source, distillation.checkpoint, str(device))
    space = loaded.field.config.space
    if space.unbounded:
        raise ValueError(
            f"{distillation.source} is a field with the contraction {space.contraction!r}; only fields of a "
            "cube teach others"
        )
    cameras = _own_cameras(loaded) if distillation.own != 0 else None
    if cameras is None and distillation.own:
        raise ValueError(f"distillation.own={distillation.own}, but the teacher's photos are not there")
    own = distillation.own if distillation.own is not None else 0.5 * (cameras is not None)
    steps = loaded.checkpoint.name.rpartition("_")[2]
    priors = PriorsConfig(depth=MetricDepthConfig()) if config.priors == "auto" else config.priors
    config = replace(
        config,
        model=replace(config.model, space=space),
        data=loaded.config.data,
        distillation=replace(distillation, own=own, checkpoint=str(int(steps))),
        priors=priors,
    )
    teacher = loaded.field.requires_grad_(False)

    def build() -> tuple[LessonLoader, FieldModel]:
        loader = LessonLoader(teacher, config, cameras)
        assert config.distillation is not None
        known = priors if isinstance(priors, PriorsConfig) else PriorsConfig()
        return loader, TaughtModel(config, config.distillation, known)

    return _Source(config, build, None)


def _own_cameras(loaded: "LoadedField") -> Cameras | None:
    """Of the photos that a field was trained on, as it has them; None where they are gone, or where their
    poses would have to be found anew."""
    data = loaded.config.data
    if data.poses == "colmap":
        return None
    try:
        photos = photos_of_split(data, data.split)
    except (OSError, ValueError):
        return None
    return (refined(photos, loaded.poses).photos if loaded.poses is not None else photos).cameras


def _placed(config: RadianceConfig, photos: PosedPhotos) -> FieldConfig:
    """The field's config, where the photos say that it is."""
    if config.model.space.contraction == "frustum":
        frustum = frustum_in_view(photos)
        return in_cube(in_frustum(config.model, frustum), *cube_of_frustum(frustum))
    low, side = cube_in_view(photos)
    # Wrong poses carve away what is there.
    if not config.pose_refinement.enabled and not config.model.space.unbounded:
        low, side = cube_around(photos, low, side)
    return in_cube(config.model, low, side)


def photos_of_split(data: PhotosConfig, split: str, progress: StageProgress | None = None) -> PosedPhotos:
    """The photos of a split, as the config says; `progress` of finding their poses."""
    return open_photos(
        data.root,
        scale=data.scale,
        split=split,
        views=data.views,
        format=data.format,
        depths=data.depth or None,
        depth_unit=data.depth_unit,
        poses=data.motion if data.poses == "colmap" else None,
        cache_dir=data.cache_dir,
        progress=progress,
    )


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
    loaded = load_field(run, checkpoint, device)
    data = loaded.config.data if data_root is None else replace(loaded.config.data, root=data_root, depth="")
    photos = photos_of_split(data, split or loaded.config.evaluation.split)
    return judge(loaded, run, photos, progress=progress, progress_of_poses=progress_of_poses)


def judge(
    loaded: "LoadedField",
    run: str | Path,
    photos: PosedPhotos,
    *,
    progress: Progress | None = None,
    progress_of_poses: Progress | None = None,
) -> Outcome:
    """Render photos that the field has not seen; writes `evaluation/<split>/metrics.json` and a picture of
    each: the photo, the rendering, its error and its depth. Where poses were refined, those of the photos
    are too (`poses`), and the found ones are written beside."""
    config, data = loaded.config, loaded.config.data
    folder = RunFolder(run).evaluation / photos.split
    if loaded.poses is not None:
        trained_on = refined(photos.of_split(data.split, data.views), loaded.poses)
        write_poses(folder / "training_poses.json", trained_on.photos)
        aligned = trained_on.align(photos)
        photos = settled(loaded.field, loaded.background, aligned, data, config, progress_of_poses)
        write_poses(folder / "poses.json", photos)
    views = judge_field(loaded.field, photos, data, config.evaluation, progress, loaded.background)
    return write_views(folder, loaded.checkpoint, views)


@dataclass(frozen=True)
class LoadedField:
    """A trained field, with the config that it was trained with."""

    config: RadianceConfig
    field: Field
    poses: PoseRefinement | None
    checkpoint: Path
    background: LearnedBackground | None = None


def load_field(run: str | Path, checkpoint: str = "last", device: str | None = None) -> LoadedField:
    """The field of a run, ready to render."""
    folder = RunFolder(run)
    config = folder.read_config(RadianceConfig)
    path = folder.checkpoints.find(checkpoint)
    weights = read_checkpoint(path).part("model")
    corrections = weights.get("poses.corrections")
    poses = refinement(config, len(corrections)) if corrections is not None else None
    model = FieldModel(config.model, config.loss, poses=poses, background=fresh_background(config))
    model.reshape_for(weights)
    load_weights(model, weights, path)
    with distributed.process_group(device or config.train.device) as place:
        model = model.to(place).eval()
        return LoadedField(config, model.field, poses, path, model.background)
