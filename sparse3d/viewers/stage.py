"""Where the demos play: one window whose things change while they are computed, or a picture of what was
seen there.

The window is Open3D's (extra `viz`); the picture is drawn on the CPU and needs no display. What is shown is
an `Exhibit`, so that pages, files and windows show the same.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sparse3d.errors import require_extra
from sparse3d.gaussians.cloud import SH0
from sparse3d.io.files import atomic_path
from sparse3d.viewers.exhibit import DARK, Exhibit
from sparse3d.viewers.still import draw_exhibit

PANEL = (480, 360)  # pixels
WINDOW = (1280, 800)
_GAP = 6  # pixels between panels
_CAPTION = 26  # pixels
_TEXT = (226, 230, 240)


def demo_arguments(description: str) -> argparse.ArgumentParser:
    """What every demo can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--headless", type=Path, metavar="PNG", help="write a picture; needs no display")
    parser.add_argument("--quick", action="store_true", help="as little as possible, to see that it runs")
    return parser


class Stage:
    """A window, or with `headless` a picture of panels.

    `show` replaces what is seen, at once: for things on their way. `keep` shows it, too, and makes it a panel
    of the picture, under its title. `end` comes last: a window stays until it is closed, a picture is
    written. ValueError where there is neither a display nor `headless`.
    """

    def __init__(self, headless: Path | None = None, panel: tuple[int, int] = PANEL, *, visible: bool = True):
        self.headless, self.panel = headless, panel
        self.panels: list[tuple[Image.Image, str]] = []
        self._window = None
        if headless is None:
            self._window = _Window(visible)
        elif headless.suffix.lower() != ".png":
            raise ValueError(f"{headless}: the picture is a PNG, its name must end in .png")

    @property
    def is_open(self) -> bool:
        """Whether there is anybody to work for: false once the window was closed."""
        return self._window is None or self._window.is_open

    def show(self, exhibit: Exhibit) -> None:
        """Let it be seen, in place of what was there."""
        if self._window is not None:
            self._window.show(exhibit)

    def keep(self, exhibit: Exhibit) -> None:
        """Let it be seen, and stay in the picture."""
        print(exhibit.title, flush=True)
        self.show(exhibit)
        if self.headless is not None:
            self.panels.append((draw_exhibit(exhibit, self.panel, title=False), exhibit.title))

    def keep_picture(self, pixels: np.ndarray, caption: str) -> None:
        """A picture (H, W, 3) in [0, 1], which stays as a panel; a window does not show it."""
        print(caption, flush=True)
        if self.headless is not None:
            image = Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
            self.panels.append((_fitted(image, self.panel), caption))

    def play(self, exhibits: Sequence[Exhibit], period: float = 0.1) -> None:
        """Show one after the other, `period` seconds each, round and round until the window is closed. A
        picture keeps nothing of it."""
        while self._window is not None and self.is_open and exhibits:
            for exhibit in exhibits:
                begin = time.monotonic()
                self.show(exhibit)
                while self.is_open and time.monotonic() - begin < period:
                    self._window.poll()

    def browse(self, exhibits: Sequence[Exhibit]) -> None:
        """Keep them all; in the window N and P lead from one to the next."""
        for exhibit in exhibits:
            self.keep(exhibit)
        if self._window is not None:
            self._window.browse(exhibits)

    def end(self) -> None:
        """Wait until the window is closed, or write the picture."""
        if self._window is not None:
            self._window.wait()
        elif self.headless is not None:
            with atomic_path(self.headless) as temporary:
                montage(self.panels).save(temporary, format="PNG", optimize=True)
            print(f"written to {self.headless}", flush=True)


def montage(panels: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Pictures of one size with a caption above each, more than three of them in two rows. ValueError for
    none."""
    if not panels:
        raise ValueError("there is nothing to put into the picture")
    columns = len(panels) if len(panels) <= 3 else math.ceil(len(panels) / 2)
    width, height = panels[0][0].size
    across, down = width + _GAP, height + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * across - _GAP, math.ceil(len(panels) / columns) * down - _GAP), DARK)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (image, caption) in enumerate(panels):
        x, y = number % columns * across, number // columns * down
        draw.text((x + 8, y + 5), caption, fill=_TEXT, font=font)
        sheet.paste(image, (x, y + _CAPTION))
    return sheet


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As large as it can be within a panel, in its middle."""
    scale = min(size[0] / image.width, size[1] / image.height)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    panel = Image.new("RGB", size, DARK)
    panel.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return panel


class _Window:
    """Open3D's window with one exhibit at a time."""

    def __init__(self, visible: bool):
        self._o3d = require_extra("open3d", "viz")
        if visible and sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            raise ValueError("there is no display here; use --headless picture.png")
        self._visualizer = self._o3d.visualization.VisualizerWithKeyCallback()
        if not self._visualizer.create_window("sparse3d", *WINDOW, visible=visible):
            raise ValueError("Open3D cannot open a window here; use --headless picture.png")
        options = self._visualizer.get_render_option()
        options.point_size, options.mesh_show_back_face = 3.0, True
        self.is_open = True
        self.geometries: list[Any] = []
        self._seen = False

    def show(self, exhibit: Exhibit) -> None:
        if not self.is_open:
            return
        for old in self.geometries:
            self._visualizer.remove_geometry(old, reset_bounding_box=False)
        self.geometries = geometries(self._o3d, exhibit)
        for new in self.geometries:
            self._visualizer.add_geometry(new, reset_bounding_box=not self._seen)
        if not self._seen and self.geometries:
            self._look(exhibit)
        self._seen = self._seen or bool(self.geometries)
        self.poll()

    def poll(self) -> None:
        """Let the mouse and the keys act, and draw."""
        if self.is_open:
            self.is_open = bool(self._visualizer.poll_events())
            self._visualizer.update_renderer()

    def browse(self, exhibits: Sequence[Exhibit]) -> None:
        at = [len(exhibits) - 1]

        def step(by: int) -> bool:
            at[0] = (at[0] + by) % len(exhibits)
            print(exhibits[at[0]].title, flush=True)
            self.show(exhibits[at[0]])
            return True

        self._visualizer.register_key_callback(ord("N"), lambda _: step(1))
        self._visualizer.register_key_callback(ord("P"), lambda _: step(-1))
        print("N, P: next and previous; Q: quit", flush=True)

    def wait(self) -> None:
        while self.is_open:
            self.poll()
            time.sleep(0.01)
        self._visualizer.destroy_window()

    def _look(self, exhibit: Exhibit) -> None:
        """From the exhibit's viewpoint, in its colours: only triangles without colours are lit."""
        options, control = self._visualizer.get_render_option(), self._visualizer.get_view_control()
        options.background_color = np.array(exhibit.background) / 255
        options.light_on = any(mesh.colors is None for mesh in exhibit.meshes)
        seen, kinds = exhibit.viewpoint.camera(*WINDOW), self._o3d.camera
        wanted = kinds.PinholeCameraParameters()
        wanted.intrinsic = kinds.PinholeCameraIntrinsic(*WINDOW, seen.fx, seen.fy, seen.cx, seen.cy)
        wanted.extrinsic = np.linalg.inv(seen.camera_to_world)
        control.convert_from_pinhole_camera_parameters(wanted, allow_arbitrary=True)
        # Open3D fits both to what is there at first, and things grow.
        control.set_constant_z_near(0.01 * exhibit.viewpoint.distance)
        control.set_constant_z_far(20 * exhibit.reach)


def geometries(o3d: Any, exhibit: Exhibit) -> list[Any]:
    """An exhibit as Open3D draws it: Gaussians are points at their means, in the colours of harmonics of
    degree 0."""
    vectors, made = o3d.utility.Vector3dVector, []
    for mesh in exhibit.meshes:
        shape = o3d.geometry.TriangleMesh(
            vectors(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
        )
        if mesh.colors is None:
            shape.compute_vertex_normals()
        else:
            shape.vertex_colors = vectors(mesh.colors / 255)
        made.append(shape)
    clouds = [] if exhibit.points is None else [(exhibit.points.places, exhibit.points.colors / 255)]
    if exhibit.splats is not None:
        opaque = exhibit.splats.opacities.detach().cpu().numpy() > 0  # more than half
        base = 0.5 + SH0 * exhibit.splats.sh0.detach().cpu().numpy()[:, 0]
        clouds.append((exhibit.splats.means.detach().cpu().numpy()[opaque], np.clip(base, 0, 1)[opaque]))
    for places, colors in clouds:
        cloud = o3d.geometry.PointCloud(vectors(places.astype(np.float64)))
        cloud.colors = vectors(colors.astype(np.float64))
        made.append(cloud)
    if exhibit.lines is not None and len(exhibit.lines.ends):
        ends = exhibit.lines.ends.astype(np.float64)
        pairs = o3d.utility.Vector2iVector(np.arange(2 * len(ends)).reshape(-1, 2))
        lines = o3d.geometry.LineSet(vectors(ends.reshape(-1, 3)), pairs)
        lines.colors = vectors(exhibit.lines.colors / 255)
        made.append(lines)
    return made
