"""Bands, occupancy and radiance voxels in files of arrays, and radiance voxels as a run that `sparse3d
render` draws."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sparse3d import config as configs
from sparse3d.engine.checkpoint import Checkpoint, CheckpointFolder, check_names
from sparse3d.engine.loop import TrainConfig
from sparse3d.errors import ConfigError, DataError
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.geometry.cameras import Camera
from sparse3d.io.array_files import read_arrays, write_arrays
from sparse3d.io.files import write_text
from sparse3d.mesh.occupancy import OccupiedVoxels
from sparse3d.mesh.signed_band import SignedBand
from sparse3d.recipes.conversion.kinds import Kind
from sparse3d.recipes.conversion.views import FIELD_OF_VIEW, bounds_of, ring, sight
from sparse3d.recipes.radiance.config import LevelConfig, PhotosConfig, RadianceConfig, RefineConfig

_FORMAT = "1"
_MOST_COORDINATE = (1 << 17) - 1
_FIELD_NUMBERS = ("sh_degree", "step", "unit", "min_alpha", "stop")
_VIEWS, _HELD_OUT, _SIZE = 12, 4, 128


def write_voxel_file(path: str | Path, thing: SignedBand | OccupiedVoxels | VoxelField) -> None:
    """Write a .safetensors or .npz atomically. ValueError for a field with a contraction."""
    words = {"sparse3d": _FORMAT}
    if isinstance(thing, VoxelField):
        if thing.config.space.unbounded:
            raise ValueError(f"{path}: a field with a contraction is kept in its run's folder alone")
        arrays = {name: value.detach().cpu().numpy() for name, value in thing.state_dict().items()}
        numbers = {name: getattr(thing.config, name) for name in _FIELD_NUMBERS}
        numbers |= {"low": list(thing.config.space.low), "side": thing.config.space.side}
        words |= {"kind": str(Kind.VOXELS), "field": json.dumps(numbers)}
    else:
        names = ("points", "distances") if isinstance(thing, SignedBand) else ("coordinates",)
        arrays = {name: getattr(thing, name) for name in names}
        arrays |= {"origin": thing.origin, "voxel_size": np.array(thing.voxel_size)}
        if thing.colors is not None:
            arrays["colors"] = thing.colors
        words["kind"] = str(Kind.BAND if isinstance(thing, SignedBand) else Kind.OCCUPANCY)
    write_arrays(path, arrays, words)


def read_voxel_file(path: str | Path) -> SignedBand | OccupiedVoxels | VoxelField:
    """What `write_voxel_file` wrote. Raises DataError."""
    arrays, words = read_arrays(path)
    kind = words.get("kind")
    if kind not in (Kind.BAND, Kind.OCCUPANCY, Kind.VOXELS) or words.get("sparse3d") != _FORMAT:
        raise DataError(
            path,
            f"is of kind {kind!r}, format {words.get('sparse3d')!r}; expected {Kind.BAND}, {Kind.OCCUPANCY} "
            f"or {Kind.VOXELS} as sparse3d writes them (its arrays: {', '.join(arrays) or 'none'})",
        )
    try:
        if kind == Kind.VOXELS:
            return _field(path, arrays, words)
        rows = arrays["points" if kind == Kind.BAND else "coordinates"]
        _check_rows(path, rows)
        place = {"voxel_size": float(arrays["voxel_size"]), "origin": arrays["origin"]}
        place["colors"] = arrays.get("colors")
        if kind == Kind.OCCUPANCY:
            return OccupiedVoxels(rows, **place)
        return SignedBand(rows, arrays["distances"], **place)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(path, f"no {kind} as sparse3d writes them: {error}") from error


def _field(path: str | Path, arrays: dict[str, np.ndarray], words: dict[str, str]) -> VoxelField:
    numbers: dict[str, Any] = json.loads(words["field"])
    x, y, z = (float(value) for value in numbers["low"])
    space = SpaceConfig((x, y, z), float(numbers["side"]))
    kept = {name: type(getattr(VoxelFieldConfig(), name))(numbers[name]) for name in _FIELD_NUMBERS}
    field = VoxelField(VoxelFieldConfig(space=space, resolution=2, **kept))
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    _check_rows(path, arrays["coordinates"])
    resolution = int(arrays["resolution"])
    cells = arrays["coordinates"][:, 1:]
    if not 1 <= resolution <= _MOST_COORDINATE or cells.min() < 0 or cells.max() >= resolution:
        raise DataError(path, f"voxels {cells.min()} to {cells.max()} in a cube of {resolution}^3")
    for name, value in tensors.items():
        if not torch.isfinite(value.double()).all():
            raise DataError(path, f"{name} is not finite")
    field.reshape_for(tensors)
    points = len(field.lattice.points)
    if len(tensors["raw_density"]) != points or len(tensors["harmonics"]) != points:
        raise DataError(path, f"{len(tensors['raw_density'])} values at the {points} corners of its voxels")
    check_names(field.state_dict(), tensors, path)
    field.load_state_dict(tensors)
    return field.eval()


def _check_rows(path: str | Path, rows: np.ndarray) -> None:
    """DataError unless these can be coordinates, each there once."""
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype != np.int32 or not len(rows):
        raise DataError(path, f"coordinates are {rows.dtype} {rows.shape}, expected (N, 4) int32, some")
    if np.abs(rows.astype(np.int64)).max() > _MOST_COORDINATE or rows[:, 0].any():
        raise DataError(path, f"coordinates beyond {_MOST_COORDINATE}, or of another batch than 0")
    if len(np.unique(rows, axis=0)) != len(rows):
        raise DataError(path, "a coordinate stands there twice")


def write_voxel_run(path: str | Path, field: VoxelField) -> None:
    """A folder as `sparse3d reconstruct` leaves one: `sparse3d render`, `mesh` and `view` take it. Its photos
    are pictures of the field from a ring of cameras, in photos/. It is there when it is whole. ValueError
    where there is something at `path`, and for a field with a contraction."""
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} is there already; name another folder")
    if field.config.space.unbounded:
        raise ValueError("a field with a contraction was made in a run, which is a folder already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        _write_photos(temporary / "photos", field)
        root = str((path / "photos").resolve())
        tree = RadianceConfig(
            model=field.config,
            data=PhotosConfig(root=root, bounds="config", background="white"),
            refine=RefineConfig(levels=(LevelConfig(),)),
            train=TrainConfig(steps=1),
        )
        configs.dump(tree, temporary / "config.yaml")
        tensors = {f"model.field.{name}": value for name, value in field.state_dict().items()}
        CheckpointFolder(temporary / "checkpoints").save(Checkpoint(tensors, {"step": 0}))
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_photos(folder: Path, field: VoxelField) -> None:
    """In the layout of NeRF's synthetic scenes."""
    bounds = bounds_of(field)
    splits = {"train": ring(*bounds, _VIEWS, _SIZE), "test": ring(*bounds, _HELD_OUT, _SIZE, turn=0.37)}
    for split, cameras in splits.items():
        (folder / split).mkdir(parents=True)
        frames = []
        for number, camera in enumerate(cameras):
            _picture(field, camera).save(folder / split / f"r_{number:03d}.png")
            pose = camera.camera_to_world * [1, -1, -1, 1]  # OpenGL's axes
            frames.append({"file_path": f"./{split}/r_{number:03d}", "transform_matrix": pose.tolist()})
        tree = {"camera_angle_x": FIELD_OF_VIEW, "frames": frames}
        write_text(folder / f"transforms_{split}.json", json.dumps(tree, indent=1) + "\n")


def _picture(field: VoxelField, camera: Camera) -> Image.Image:
    seen = sight(field, camera, (0.0, 0.0, 0.0))
    opacity = seen.opacity[..., None]
    pixels = np.concatenate([seen.color / np.maximum(opacity, 1e-6), opacity], 2)
    return Image.fromarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))
