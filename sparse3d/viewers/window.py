"""Scenes in a window that one turns and walks through with the mouse and a few keys (extra `viz`)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sparse3d.errors import require_extra
from sparse3d.viewers.colors import class_color
from sparse3d.viewers.scene import TRUTH_COLOR, Boxes, Coloring, Scene, box_lines

KEYS = "N, P: next and previous frame; C: other colours; L: labelled boxes; + and -: point size; Q: quit"


class SceneWindow:
    """One of several scenes at a time. `scene(i)` for i in [0, count) is called when it is to be seen."""

    def __init__(
        self,
        count: int,
        scene: Callable[[int], Scene],
        start: int = 0,
        *,
        color_by: Coloring | None = None,
        truth: bool = True,
        visible: bool = True,
    ):
        self._o3d = require_extra("open3d", "viz")
        self.count, self._scene = count, scene
        self.index, self.truth = start, truth
        self.coloring: Coloring | None = color_by
        self._visualizer = self._o3d.visualization.VisualizerWithKeyCallback()
        if not self._visualizer.create_window("sparse3d", 1600, 900, visible=visible):
            raise ValueError(
                "Open3D cannot open a window here (no display?); use --out picture.png or --browser"
            )
        options = self._visualizer.get_render_option()
        options.background_color = np.array([11, 13, 20]) / 255
        options.point_size = 2.0
        for key, act in {
            "N": lambda: self.step(1),
            "P": lambda: self.step(-1),
            "C": self.next_coloring,
            "L": self.toggle_truth,
        }.items():
            self._visualizer.register_key_callback(ord(key), self._calling(act))
        self.geometries: list[Any] = []
        self._draw(first=True)

    def step(self, by: int) -> None:
        """Go forward or back; behind the last frame comes the first."""
        self.index = (self.index + by) % self.count
        self._draw()

    def next_coloring(self) -> None:
        """Colour the points by the next value that they have."""
        ways = self._scene(self.index).colorings
        at = ways.index(self.coloring) if self.coloring in ways else 0
        self.coloring = ways[(at + 1) % len(ways)]
        self._draw()

    def toggle_truth(self) -> None:
        """Show or hide the labelled boxes."""
        self.truth = not self.truth
        self._draw()

    def run(self) -> None:
        """Until the window is closed."""
        self._visualizer.run()
        self.close()

    def close(self) -> None:
        """Give the window back."""
        self._visualizer.destroy_window()

    def _calling(self, act: Callable[[], None]) -> Callable[[Any], bool]:
        def callback(visualizer: Any) -> bool:
            act()
            return True

        return callback

    def _draw(self, first: bool = False) -> None:
        scene = self._scene(self.index)
        for old in self.geometries:
            self._visualizer.remove_geometry(old, reset_bounding_box=False)
        self.geometries = geometries(self._o3d, scene, self.coloring, self.truth)
        for new in self.geometries:
            self._visualizer.add_geometry(new, reset_bounding_box=first)
        if first:
            view = self._visualizer.get_view_control()
            view.set_front((-30.0, 0.0, 13.0))
            view.set_lookat((14.0, 0.0, -2.0))
            view.set_up((0.0, 0.0, 1.0))
            view.set_zoom(0.12)


def geometries(o3d: Any, scene: Scene, coloring: Coloring | None, truth: bool) -> list[Any]:
    """A scene as Open3D draws it: a cloud, and the lines of boxes where there are some."""
    by = coloring if coloring in scene.colorings else scene.colorings[0]
    finite = np.isfinite(scene.points[:, :3]).all(axis=1)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(scene.points[finite, :3].astype(np.float64)))
    cloud.colors = o3d.utility.Vector3dVector(scene.colors(by)[finite] / 255)
    made = [cloud]
    for boxes, color in ((scene.found, None), (scene.truth if truth else Boxes.none(), TRUTH_COLOR)):
        if not len(boxes.boxes):
            continue
        ends = box_lines(boxes.boxes).astype(np.float64)
        lines = o3d.geometry.LineSet(
            o3d.utility.Vector3dVector(ends.reshape(-1, 3)),
            o3d.utility.Vector2iVector(np.arange(ends.size // 3).reshape(-1, 2)),
        )
        each = np.array([color or class_color(label) for label in boxes.labels.tolist()]) / 255
        lines.colors = o3d.utility.Vector3dVector(each.repeat(ends.shape[1], axis=0))
        made.append(lines)
    return made
