"""Something to look at: meshes, Gaussians, points and lines in one world, and where one looks from first.

Pages, pictures and files of one page draw the same one. World coordinates are right-handed, metres; colours
are sRGB. Which way is up is nothing that files agree on: `UP` has what their makers mostly do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.render import SplatConfig
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.orbits import looking
from sparse3d.viewers.colors import class_color
from sparse3d.viewers.scene import TRUTH_COLOR, Boxes, Coloring, LegendRow, Scene, box_lines

UP = {
    **{"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)},
    **{"-x": (-1.0, 0.0, 0.0), "-y": (0.0, -1.0, 0.0), "-z": (0.0, 0.0, -1.0)},
}
DARK = (11, 13, 20)
_FIELD_OF_VIEW = 45.0
# A ball fills this part of the picture's height when one looks at all of it.
_FILLED = 0.85
_ABOVE = 0.35  # radians over the horizon
# Of what is scattered, this part along each axis is what one came to see; the rest are strays.
_MOST = 0.96


@dataclass(frozen=True)
class Viewpoint:
    """Where one stands, what one looks at, world, metres; what is up; the field of view from the picture's
    lower edge to its upper one, degrees. ValueError where that is no view."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float] = UP["z"]
    field_of_view: float = _FIELD_OF_VIEW

    def __post_init__(self):
        for name in ("eye", "target", "up"):
            x, y, z = (float(value) for value in getattr(self, name))
            object.__setattr__(self, name, (x, y, z))
        if not np.isfinite([*self.eye, *self.target, *self.up]).all() or not 0 < self.field_of_view < 180:
            raise ValueError(f"a view of finite places and 0 to 180 degrees, got {self}")
        looking(np.array(self.eye), np.array(self.target), np.array(self.up))

    @property
    def distance(self) -> float:
        """Metres from the eye to the target."""
        return float(np.linalg.norm(np.subtract(self.eye, self.target)))

    def camera(self, width: int, height: int) -> Camera:
        """The pinhole of this view with a picture of so many pixels."""
        focal = height / 2 / math.tan(math.radians(self.field_of_view) / 2)
        pose = looking(np.array(self.eye), np.array(self.target), np.array(self.up))
        return Camera(focal, focal, width / 2, height / 2, width, height, pose)


@dataclass(frozen=True, eq=False)
class Points:
    """`places` (N, 3) and `colors` (N, 3) uint8, each drawn `size` metres wide."""

    places: np.ndarray
    colors: np.ndarray
    size: float


@dataclass(frozen=True, eq=False)
class Lines:
    """`ends` (L, 2, 3) and `colors` (L, 3) uint8."""

    ends: np.ndarray
    colors: np.ndarray


@dataclass(frozen=True, eq=False)
class Exhibit:
    """What is shown, and how Gaussians of it are drawn."""

    title: str
    viewpoint: Viewpoint
    meshes: tuple[Mesh, ...] = ()
    splats: GaussianCloud | None = None
    points: Points | None = None
    lines: Lines | None = None
    legend: tuple[LegendRow, ...] = ()
    background: tuple[int, int, int] = DARK
    drawing: SplatConfig = SplatConfig()

    @property
    def reach(self) -> float:
        """Metres from the view's target to the farthest thing, at least its distance: what a camera must
        see."""
        far = [self.viewpoint.distance]
        for places in _places(self):
            far.append(float(np.linalg.norm(places - np.array(self.viewpoint.target), axis=1).max()))
        return max(far)

    @property
    def contents(self) -> str:
        """What it is made of, in words."""
        counts = {
            "triangles": sum(len(mesh.faces) for mesh in self.meshes),
            "Gaussians": 0 if self.splats is None or self.splats.surfels else len(self.splats),
            "surfels": 0 if self.splats is None or not self.splats.surfels else len(self.splats),
            "points": 0 if self.points is None else len(self.points.places),
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"

    def upright(self, up: tuple[float, float, float]) -> Viewpoint:
        """Its view with another direction up."""
        view = self.viewpoint
        return before(np.array(view.target), view.distance, up, view.field_of_view)


def exhibit_of_mesh(title: str, mesh: Mesh, up: tuple[float, float, float] = UP["z"]) -> Exhibit:
    """One mesh. ValueError for one without triangles."""
    if not len(mesh.faces):
        raise ValueError(f"{title}: a mesh without triangles has nothing to show")
    return Exhibit(title, around([mesh.vertices[np.unique(mesh.faces)]], up), (mesh,))


def exhibit_of_splats(
    title: str,
    cloud: GaussianCloud,
    up: tuple[float, float, float] = UP["-y"],
    drawing: SplatConfig | None = None,
) -> Exhibit:
    """One cloud of Gaussians or surfels that can all be drawn (`gaussians.repair`). ValueError for an empty
    one."""
    if not len(cloud):
        raise ValueError(f"{title}: there are no Gaussians to show")
    return Exhibit(
        title,
        around([cloud.means.detach().cpu().numpy()], up),
        splats=cloud,
        drawing=drawing or SplatConfig(),
    )


def exhibit_of_scene(
    scene: Scene, color_by: Coloring | None = None, truth: bool = True, point_size: float = 0.06
) -> Exhibit:
    """Points with boxes, as `perspective.draw_scene` looks at them."""
    by = color_by or scene.colorings[0]
    finite = np.isfinite(scene.points[:, :3]).all(axis=1)
    places = scene.points[finite, :3].astype(np.float64)
    ends, colors = [np.zeros((0, 2, 3))], [np.zeros((0, 3), np.uint8)]
    for boxes, color in ((scene.found, None), (scene.truth if truth else Boxes.none(), TRUTH_COLOR)):
        lines = box_lines(boxes.boxes)
        each = np.array([color or class_color(label) for label in boxes.labels.tolist()], dtype=np.uint8)
        ends.append(lines.reshape(-1, 2, 3))
        colors.append(each.reshape(-1, 3).repeat(lines.shape[1], axis=0))
    return Exhibit(
        scene.title,
        Viewpoint((-16.0, 0.0, 11.0), (14.0, 0.0, -2.0)),
        points=Points(places, scene.colors(by)[finite], point_size),
        lines=Lines(np.concatenate(ends), np.concatenate(colors)),
        legend=tuple(scene.legend(by, truth)),
    )


def around(places: Sequence[np.ndarray], up: tuple[float, float, float]) -> Viewpoint:
    """A view, from a little above, of where most of some places (N, 3) are. ValueError for none."""
    if not sum(map(len, places)):
        raise ValueError("there is nothing to look at")
    shares = [(1 - _MOST) / 2, (1 + _MOST) / 2]
    low, high = np.quantile(np.concatenate([p.astype(np.float64) for p in places]), shares, axis=0)
    middle = (low + high) / 2
    # Of the ball around the box its corners are mostly empty.
    reach = max(0.8 * float(np.linalg.norm(high - low)) / 2, 1e-6)
    distance = reach / _FILLED / math.sin(math.radians(_FIELD_OF_VIEW) / 2)
    return before(middle, distance, up)


def before(
    target: np.ndarray, distance: float, up: tuple[float, float, float], field_of_view: float = _FIELD_OF_VIEW
) -> Viewpoint:
    """A view from the front, a little above: from +z where y is up (glTF), -z where it is down (OpenCV), -y
    where z is up."""
    upward = np.array(up) / np.linalg.norm(up)
    across = np.eye(3)[0 if abs(upward[0]) < 0.9 else 1]
    level = np.cross(across, upward)
    offset = math.cos(_ABOVE) * level / np.linalg.norm(level) + math.sin(_ABOVE) * upward
    eye, middle, above = ((p[0], p[1], p[2]) for p in (target + distance * offset, target, upward))
    return Viewpoint(eye, middle, above, field_of_view)


def _places(exhibit: Exhibit) -> list[np.ndarray]:
    """Where each of its parts lies, (N, 3) each."""
    found = [mesh.vertices for mesh in exhibit.meshes]
    if exhibit.splats is not None:
        found.append(exhibit.splats.means.detach().cpu().numpy())
    if exhibit.points is not None:
        found.append(exhibit.points.places)
    if exhibit.lines is not None:
        found.append(exhibit.lines.ends.reshape(-1, 3))
    return [places for places in found if len(places)]
