"""Poses for photos that have none: COLMAP's incremental structure from motion through pycolmap (extra `sfm`).

The result is kept beside the photos as a COLMAP model and found again as long as the photos and the choices
are the same. Photos that found no place are listed with what is known of the reason.

pycolmap, not a matcher of our own: Schoenberger and Frahm 2016, "Structure-from-Motion Revisited", is what
published captures were posed with, and its models are what other tools read.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sparse3d.data.array_cache import stamps_key
from sparse3d.data.kitti_index import cache_folder
from sparse3d.errors import DataError, require_extra
from sparse3d.io.captures import Capture, Skipped
from sparse3d.io.colmap import read_model
from sparse3d.io.image_folders import images_in
from sparse3d.io.images import image_size
from sparse3d.io.reading import read_text

_log = logging.getLogger(__name__)

# Part of the key of a stored result; raise it when its meaning changes.
_VERSION = 1

# Progress of a stage: its name, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StructureFromMotionConfig:
    """Choices for structure from motion; the defaults of COLMAP hold for the rest."""

    lens: Literal["SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"] = "OPENCV"
    shared_camera: bool = True  # photos of one size were taken by one camera; false: each has its own
    matching: Literal["exhaustive", "sequential"] = "exhaustive"  # sequential: frames of a video, in order
    features: int = 8192  # SIFT features a photo, at most
    longest_side: int = 3200  # pixels; larger photos are shrunk to find features
    threads: int = -1  # -1: all; with 1 and the same seed a result repeats
    seed: int = 0


def posed_by_motion(
    root: Path,
    config: StructureFromMotionConfig | None = None,
    *,
    cache_dir: str | Path = "",
    progress: Progress | None = None,
) -> Capture:
    """The photos in `root`/images (or in `root` itself) with poses that are found from them.

    Photos without a pose are in `skipped`, each with the reason. DataError where no two photos fit together;
    MissingExtraError where pycolmap is not installed and no stored result fits.
    """
    config = config or StructureFromMotionConfig()
    photos = root / "images" if (root / "images").is_dir() else root
    names = [path.name for path in images_in(photos)] if photos.is_dir() else []
    if len(names) < 2:
        raise DataError(photos, f"{len(names)} photos; structure from motion needs two that overlap, or more")
    stamps = stamps_key(_VERSION, [photos / name for name in names])
    choices = {k: v for k, v in asdict(config).items() if k != "threads"}
    digest = hashlib.sha256(f"{stamps}{json.dumps(choices, sort_keys=True)}".encode()).hexdigest()[:12]
    folder = cache_folder(root, cache_dir) / f"sparse3d_sfm_{digest}"
    if not (folder / "unplaced.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        try:
            _reconstruct(made, photos, names, config, progress or _silent)
            shutil.rmtree(folder, ignore_errors=True)  # of a result without its list, which nothing makes
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    capture = read_model(folder / "sparse", photos, root / "masks")
    unplaced = tuple(Skipped(*entry) for entry in json.loads(read_text(folder / "unplaced.json")))
    if unplaced:
        _log.warning("%s: no pose found for %d of %d photos", photos, len(unplaced), len(names))
    return replace(capture, skipped=capture.skipped + unplaced)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _reconstruct(
    out: Path, photos: Path, names: list[str], config: StructureFromMotionConfig, progress: Progress
) -> None:
    """Write out/sparse (a model) and out/unplaced.json."""
    pycolmap: Any = require_extra("pycolmap", "sfm")
    database = out / "features.db"
    quiet, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 2  # errors only
    try:
        _find_features(pycolmap, database, photos, names, config, progress)
        progress("matching", 0, 1)
        _match(pycolmap, database, config)
        progress("matching", 1, 1)
        model = _place(pycolmap, database, photos, out, len(names), config, progress)
        reasons = _reasons(pycolmap, database, names, model)
    finally:
        pycolmap.logging.minloglevel = quiet
    if model is None:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
        raise DataError(
            photos,
            f"structure from motion placed none of {len(names)} photos ({some}). It needs sharp photos of "
            "something that stands still and has texture, from places that differ, each with much of what "
            "its neighbours show",
        )
    sparse = out / "sparse"
    sparse.mkdir(exist_ok=True)
    model.write_binary(str(sparse))
    for path in out.iterdir():  # pycolmap's own numbered models, and the features: many times the result
        if path != sparse:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (out / "unplaced.json").write_text(json.dumps(list(reasons.items())), encoding="utf-8")


def _find_features(
    pycolmap: Any,
    database: Path,
    photos: Path,
    names: list[str],
    config: StructureFromMotionConfig,
    progress: Progress,
) -> None:
    """Photo by photo, so that progress can be told. Photos of one size share a camera where asked for: the
    first of them makes it."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu, options.max_image_size = config.threads, False, config.longest_side
    options.sift.max_num_features = config.features
    camera_of_size: dict[tuple[int, int], int] = {}
    for number, name in enumerate(names):
        progress("features", number, len(names))
        size = image_size(photos / name)
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = config.lens
        if config.shared_camera and size in camera_of_size:
            reader.existing_camera_id = camera_of_size[size]
        pycolmap.extract_features(
            database,
            photos,
            image_names=[name],
            camera_mode=pycolmap.CameraMode.PER_IMAGE,
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
        with pycolmap.Database.open(database) as opened:
            if opened.exists_image(name):
                camera_of_size.setdefault(size, opened.read_image_with_name(name).camera_id)
    progress("features", len(names), len(names))


def _match(pycolmap: Any, database: Path, config: StructureFromMotionConfig) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads, options.use_gpu = config.threads, False
    pycolmap.set_random_seed(config.seed)
    match = pycolmap.match_exhaustive if config.matching == "exhaustive" else pycolmap.match_sequential
    match(database, matching_options=options, device=pycolmap.Device.cpu)


def _place(
    pycolmap: Any,
    database: Path,
    photos: Path,
    out: Path,
    count: int,
    config: StructureFromMotionConfig,
    progress: Progress,
) -> Any:
    """The model with the most photos, None where there is none."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = config.threads, config.seed
    options.min_model_size = 2  # few photos are what we are for
    placed = [2]  # the first pair comes at once

    def another() -> None:
        placed[0] += 1
        progress("placing", min(placed[0], count), count)

    progress("placing", 0, count)
    models = pycolmap.incremental_mapping(database, photos, out, options=options, next_image_callback=another)
    progress("placing", count, count)
    return max(
        models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None
    )


def _reasons(pycolmap: Any, database: Path, names: list[str], model: Any) -> dict[str, str]:
    """Why each photo that is not in the model may have found no place."""
    placed = set() if model is None else {model.images[i].name for i in model.reg_image_ids()}
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        features = {name: opened.num_keypoints_for_image(ids[name]) for name in names if name in ids}
        matched = {image_id: 0 for image_id in ids.values()}
        for pair, inliers in zip(*opened.read_two_view_geometry_num_inliers(), strict=True):
            for image_id in pycolmap.pair_id_to_image_pair(pair):
                matched[image_id] = max(matched[image_id], inliers)
    reasons = {}
    for name in names:
        if name in placed:
            continue
        if not features.get(name):
            reasons[name] = "no features found, or not readable"
        elif not matched[ids[name]]:
            reasons[name] = f"{features[name]} features, none of which another photo has: no overlap?"
        else:
            reasons[name] = (
                f"{features[name]} features, at most {matched[ids[name]]} in common with another photo"
            )
    return reasons
