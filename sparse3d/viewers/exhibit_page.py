"""An exhibit as a page in the browser, which may change while somebody looks: a training, say (extra `viz`).

Meshes, Gaussians, points and lines are drawn by the browser; pictures of fields, and depth and normals of
what can tell them, are drawn here for the camera of each browser (`rendered`).
"""

import threading
from typing import Any

import numpy as np
import torch

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.quantizing import colors_of, opacity_bytes, to_bytes
from sparse3d.gaussians.shapes import covariances
from sparse3d.geometry.mesh import Mesh
from sparse3d.viewers.exhibit import UP, Exhibit, Lines, Points, Viewpoint
from sparse3d.viewers.guard import LOOPBACK, GuardedServer
from sparse3d.viewers.panel import LossPlot, plain
from sparse3d.viewers.rendered import PictureServer
from sparse3d.viewers.seen import KINDS, Sight
from sparse3d.viewers.still import PLAIN, is_painted
from sparse3d.viewers.tones import glb_for_viser

_OBJECTS = "what is there"
_THINGS = "/things"
# viser keeps covariances in float16, whose numbers have all digits from 6e-5 to 6e4: half of them are put
# near the middle of that.
_MIDDLE_VARIANCE = 0.5
_LARGEST = 6e4


class ExhibitServer(GuardedServer):
    """One exhibit; `url` opens it, `close()` ends it. `sight` tells what a camera sees where the browser
    cannot draw it itself, or as depth and normals; `objects`: exhibits have parts that the browser draws,
    beside it; `threaded`: its pictures are drawn in a thread of their own, else where `pictures.draw_next`
    is called."""

    def __init__(
        self,
        exhibit: Exhibit,
        port: int = 0,
        host: str = LOOPBACK,
        sight: Sight | None = None,
        objects: bool = True,
        threaded: bool = True,
    ):
        super().__init__(port, host)
        self._exhibit, self._changing = exhibit, threading.Lock()
        self.pictures: PictureServer | None = None
        gui = self.server.gui
        gui.configure_theme(dark_mode=sum(exhibit.background) < 384, show_share_button=False)
        self._title = gui.add_markdown("")
        self._note = gui.add_markdown("", visible=False)
        self.losses = LossPlot(gui)
        self._splats: Any = None
        self._there: set[str] = set()
        names = [name for name, up in UP.items() if np.allclose(up, exhibit.viewpoint.up, atol=1e-4)]
        ways = tuple(UP) if names else ("as given", *UP)
        self._up = gui.add_dropdown("up", ways, initial_value=names[0] if names else "as given")
        self._up.on_update(lambda event: self._turn())
        if sight is not None:
            self.pictures = PictureServer(self.server, sight)
            self._kind = gui.add_dropdown("show", (_OBJECTS, *KINDS) if objects else KINDS)
            self._kind.on_update(lambda event: self._choose())
            self._choose()
            if threaded:
                threading.Thread(target=self.pictures.run, daemon=True).start()
        self._stand(exhibit.viewpoint)
        self.show(exhibit)

    def show(self, exhibit: Exhibit, sight: Sight | None = None, stand: bool = False) -> None:
        """Another exhibit in place of the one before; whoever looks stays where he stands, or goes to where
        one looks at it from first (`stand`)."""
        with self._changing, self.server.atomic():
            self._exhibit = exhibit
            there = {f"{_THINGS}/mesh_{number}": mesh for number, mesh in enumerate(exhibit.meshes)}
            parts = {"splats": exhibit.splats, "points": exhibit.points, "lines": exhibit.lines}
            there |= {f"{_THINGS}/{name}": part for name, part in parts.items() if part is not None}
            for name in self._there - there.keys():
                self.server.scene.remove_by_name(name)
                self._splats = None if name.endswith("splats") else self._splats
            for name, part in there.items():
                self._add(name, part)
            self._there = set(there)
            rows = [f"- {plain(row.text)}" for row in exhibit.legend]
            self._title.content = "\n".join([f"**{plain(exhibit.title)}**", "", *rows])
        if stand:
            self._stand(exhibit.viewpoint)
            self._move(exhibit.viewpoint)
        if self.pictures is not None:
            self.pictures.renew(**({} if sight is None else {"sight": sight}))

    def note(self, text: str) -> None:
        """A line below the title."""
        self._note.content, self._note.visible = plain(text), bool(text)

    def close(self) -> None:
        if self.pictures is not None:
            self.pictures.close()
        super().close()

    def _choose(self) -> None:
        assert self.pictures is not None
        objects = self._kind.value == _OBJECTS
        self.server.scene.add_frame(_THINGS, show_axes=False, visible=objects)
        self.pictures.renew(kind=None if objects else self._kind.value)

    def _turn(self) -> None:
        up = UP.get(self._up.value, self._exhibit.viewpoint.up)
        view = self._exhibit.upright(up)
        self._stand(view)
        self._move(view)

    def _move(self, view: Viewpoint) -> None:
        for client in self.server.get_clients().values():
            with client.atomic():
                client.camera.up_direction, client.camera.position = view.up, view.eye
                client.camera.look_at = view.target

    def _stand(self, view: Viewpoint) -> None:
        """Where browsers that come stand first."""
        self.server.scene.set_up_direction(view.up)
        first = self.server.initial_camera
        first.position, first.look_at, first.up = view.eye, view.target, view.up
        first.fov = float(np.radians(view.field_of_view))
        first.near, first.far = view.distance * 1e-3, 2 * (view.distance + self._exhibit.reach)

    def _add(self, name: str, part: Mesh | GaussianCloud | Points | Lines) -> None:
        scene = self.server.scene
        match part:
            case Mesh():
                self._add_mesh(name, part)
            case GaussianCloud():
                self._add_splats(name, part)
            case Points():
                scene.add_point_cloud(
                    name,
                    part.places.astype(np.float32),
                    part.colors,
                    point_size=part.size,
                    point_shape="rounded",
                )
            case Lines():
                colors = part.colors[:, None].repeat(2, 1)
                scene.add_line_segments(name, part.ends.astype(np.float32), colors)

    def _add_mesh(self, name: str, mesh: Mesh) -> None:
        scene = self.server.scene
        if is_painted(mesh):
            scene.add_glb(name, glb_for_viser(mesh), cast_shadow=False, receive_shadow=False)
        else:
            faces = mesh.faces.astype(np.uint32)
            scene.add_mesh_simple(name, mesh.vertices, faces, color=PLAIN, side="double")

    def _add_splats(self, name: str, cloud: GaussianCloud) -> None:
        scale, packed = packed_for_viser(cloud)
        if self._splats is None:
            one = np.zeros((1, 3))
            self._splats = self.server.scene.add_gaussian_splats(
                name, one, np.eye(3)[None], one, np.zeros((1, 1))
            )
        # viser fades new ones in; what changes is there at once.
        self._splats.scale, self._splats.buffer = scale, packed


def packed_for_viser(cloud: GaussianCloud) -> tuple[float, np.ndarray]:
    """What the numbers of Gaussians are multiplied by, and these (N, 8) uint32 as viser lays them out: mean 3
    x float32, 4 bytes free, upper triangle of the covariance 6 x float16, colour and opacity 4 x uint8."""
    cloud = GaussianCloud.of({k: v.detach() for k, v in cloud.parameters().items()}).to("cpu", torch.float32)
    spread = covariances(cloud.scales, cloud.quats).double().numpy()
    typical = float(np.median(np.trace(spread, axis1=1, axis2=2)))
    factor = np.sqrt(_MIDDLE_VARIANCE / max(typical, 1e-12))
    kinds = [("mean", "<f4", 3), ("free", "<u4"), ("spread", "<f2", 6), ("color", "u1", 4)]
    rows = np.zeros(len(cloud), np.dtype(kinds))
    rows["mean"] = cloud.means.numpy() * factor
    rows["spread"] = np.clip(spread * factor**2, -_LARGEST, _LARGEST).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    rows["color"][:, :3] = to_bytes(255 * colors_of(cloud.sh0))
    rows["color"][:, 3] = opacity_bytes(cloud.opacities)
    return float(1 / factor), rows.view(np.uint32).reshape(-1, 8)
