"""Runs of `sparse3d reconstruct`, finished or still going, for `sparse3d view`: Gaussians as they are, fields
as pictures of them, or as their mesh where a page has to live without this program."""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.commands.view_files import usable
from sparse3d.commands.view_watch import WatchedRun
from sparse3d.data.photos import PosedPhotos
from sparse3d.fields.mesh import MeshConfig, field_mesh
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.orbits import orbit, upright
from sparse3d.recipes.radiance.config import PhotosConfig, Vector
from sparse3d.recipes.radiance.reconstruct import LoadedField, photos_of_split
from sparse3d.recipes.scenes import Loaded, ReconstructedScene, load_run, scene_of
from sparse3d.recipes.tasks import task_of_run
from sparse3d.viewers.exhibit import DARK, UP, Exhibit, Viewpoint, before
from sparse3d.viewers.exhibit_page import ExhibitServer
from sparse3d.viewers.seen import Seen, Sight, paint


class Stand(NamedTuple):
    """How the photos of a run were taken, which says where one looks at it from: what is up, a camera of
    theirs, and what stands behind the scene."""

    up: tuple[float, float, float]
    camera: Camera | None
    background: Vector | None


def stand_of(data: PhotosConfig, middle: np.ndarray, photos: PosedPhotos | None = None) -> Stand:
    """From the run's photos; where they are gone, z is up and the rest is not known."""
    try:
        photos = photos or photos_of_split(data, data.split)
        (camera,) = orbit(photos.cameras, middle, 1)
    except (ValueError, OSError):
        return Stand(UP["z"], None, None)
    x, y, z = upright(photos.cameras).tolist()
    return Stand((x, y, z), camera, data.background_color(photos.capture.background))


def viewpoint_of(stand: Stand, middle: np.ndarray, reach: float, up: str | None) -> Viewpoint:
    """As the photos' cameras stand, unless another direction is up."""
    camera = stand.camera
    if camera is None or up is not None:
        return before(middle, 3 * reach, UP[up] if up else stand.up)
    eye, target = camera.camera_to_world[:3, 3].tolist(), middle.tolist()
    view = 2 * math.degrees(math.atan(camera.height / 2 / camera.fy))
    return Viewpoint((eye[0], eye[1], eye[2]), (target[0], target[1], target[2]), stand.up, view)


def quickly(loaded: Loaded) -> Loaded:
    """To be drawn with one ray a pixel: a camera that moves is worth no more."""
    if not isinstance(loaded, LoadedField):
        return loaded
    evaluation = replace(loaded.config.evaluation, rays_per_side=1)
    return replace(loaded, config=replace(loaded.config, evaluation=evaluation))


def exhibit_of_loaded(
    title: str,
    loaded: Loaded,
    scene: ReconstructedScene,
    stand: Stand,
    up: str | None = None,
    mesh: bool = False,
) -> Exhibit:
    """Gaussians; of a field its `mesh`, or nothing but where to look from."""
    view = viewpoint_of(stand, scene.middle, scene.reach, up)
    made = Exhibit(title, view, background=in_bytes(stand.background))
    if isinstance(loaded, LoadedField):
        return replace(made, meshes=(field_mesh(loaded.field, MeshConfig()),)) if mesh else made
    cloud = usable(loaded.checkpoint, loaded.cloud)
    return replace(made, splats=cloud, drawing=loaded.config.drawing)


def waiting(title: str, up: str | None = None) -> Exhibit:
    """Nothing yet."""
    return Exhibit(title, before(np.zeros(3), 3.0, UP[up or "z"]))


class ShownRun(WatchedRun):
    """A run as exhibits: of its checkpoint as it is now, which may be another one later. `data_root` takes
    the place of that of the config."""

    def __init__(
        self,
        run: Path,
        checkpoint: str,
        device: str | None = None,
        up: str | None = None,
        data_root: str | None = None,
    ):
        super().__init__(run, checkpoint)
        self.device, self.up, self.data_root = device, up, data_root
        self.title = run.resolve().name
        self._stand: Stand | None = None

    def show(self, mesh: bool = False) -> tuple[Exhibit, Sight]:
        """What it holds (see `exhibit_of_loaded`), and what cameras see of it. FileNotFoundError where there
        is no checkpoint."""
        loaded = quickly(load_run(self.run, self.checkpoint, self.device))
        scene = scene_of(loaded)
        if self._stand is None:
            data = scene.data if self.data_root is None else replace(scene.data, root=self.data_root)
            self._stand = stand_of(data, scene.middle)
        title = f"{self.title}, step {step_of(loaded.checkpoint)}"
        exhibit = exhibit_of_loaded(title, loaded, scene, self._stand, self.up, mesh)
        return exhibit, sight_of(scene, self._stand.background)


def in_bytes(background: Vector | None) -> tuple[int, int, int]:
    """A background of [0, 1], or the dark one where none is known."""
    if background is None:
        return DARK
    red, green, blue = (round(255 * part) for part in background)
    return red, green, blue


def sight_of(scene: ReconstructedScene, background: Vector | None) -> Sight:
    """What cameras see of a scene before a background (black where it is not known)."""
    behind = background or (0.0, 0.0, 0.0)

    def see(camera: Camera) -> Seen:
        return Seen(*scene.draw(camera, behind))

    return Sight(see, scene.middle, scene.reach)


def picture_of_run(shown: ShownRun, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of the first view, as the run's own renderer draws it."""
    exhibit, sight = shown.show()
    camera = exhibit.viewpoint.camera(*size)
    return paint(sight.see(camera), "colour", camera, *sight.depths(camera))


def serve_run(shown: ShownRun, port: int, host: str) -> ExhibitServer:
    """A page of a run, with what its checkpoint holds, or without anything yet."""
    objects = task_of_run(shown.run).name == "splatting"
    if shown.newest() is None:
        server = ExhibitServer(waiting(shown.title, shown.up), port, host, BLANK, objects)
        server.note("no checkpoint yet")
    else:
        exhibit, sight = shown.show()
        server = ExhibitServer(exhibit, port, host, sight, objects)
    server.losses.show(shown.curves())
    return server


def _nothing(camera: Camera) -> Seen:
    shape = camera.height, camera.width
    return Seen(np.zeros((*shape, 3)), np.zeros(shape), np.zeros(shape))


# Of what there is nothing to be seen of yet.
BLANK = Sight(_nothing, np.zeros(3), 1.0)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step_"))
