"""Scenes as a page in the browser, one frame at a time (extra `viz`)."""

import threading
from collections.abc import Callable

import numpy as np

from sparse3d.viewers.colors import class_color
from sparse3d.viewers.guard import LOOPBACK, GuardedServer
from sparse3d.viewers.panel import LossPlot, plain
from sparse3d.viewers.scene import COLORINGS, TRUTH_COLOR, Boxes, Scene, box_lines


class SceneServer(GuardedServer):
    """Shows one of several scenes at a time; `url` opens it. `close()` ends it."""

    def __init__(
        self, count: int, scene: Callable[[int], Scene], port: int = 0, start: int = 0, host: str = LOOPBACK
    ):
        """`scene(i)` for i in [0, count) is called when it is to be seen. Port 0: one that is free."""
        super().__init__(port, host)
        self._scene, self._lock = scene, threading.Lock()
        gui = self.server.gui
        self._frame = gui.add_slider("frame", 0, max(count - 1, 1), 1, start, disabled=count < 2)
        self._color = gui.add_dropdown("colour", ("most telling", *COLORINGS))
        self._size = gui.add_slider("point size (m)", 0.01, 0.3, 0.01, 0.05)
        self._truth = gui.add_checkbox("labelled boxes", True)
        self._title = gui.add_markdown("")
        self._note = gui.add_markdown("", visible=False)
        self.losses = LossPlot(gui)
        for control in (self._frame, self._color, self._size, self._truth):
            control.on_update(lambda event: self.show())
        self.server.scene.set_up_direction("+z")
        self.server.initial_camera.position = (-16.0, 0.0, 11.0)
        self.server.initial_camera.look_at = (14.0, 0.0, -2.0)
        self.show()

    def show(self) -> None:
        """Draw what the controls ask for."""
        with self._lock, self.server.atomic():
            scene = self._scene(int(self._frame.value))
            wanted = self._color.value
            by = wanted if wanted in scene.colorings else scene.colorings[0]
            finite = np.isfinite(scene.points[:, :3]).all(axis=1)
            self.server.scene.add_point_cloud(
                "/points",
                scene.points[finite, :3].astype(np.float32),
                scene.colors(by)[finite],
                point_size=self._size.value,
                point_shape="rounded",
            )
            self._lines("/found", scene.found, None)
            self._lines("/labelled", scene.truth if self._truth.value else Boxes.none(), TRUTH_COLOR)
            rows = [f"- {plain(row.text)}" for row in scene.legend(by, self._truth.value)]
            self._title.content = "\n".join([f"**{plain(scene.title)}**, by {by}", "", *rows])

    def replace(self, scene: Callable[[int], Scene]) -> None:
        """Take the same frames from somewhere else, as from a model that knows more."""
        self._scene = scene
        self.show()

    def note(self, text: str) -> None:
        """A line below the title."""
        self._note.content, self._note.visible = plain(text), bool(text)

    def _lines(self, name: str, boxes: Boxes, color: tuple[int, int, int] | None) -> None:
        ends = box_lines(boxes.boxes)
        colors = [color or class_color(label) for label in boxes.labels.tolist()]
        each = np.array(colors, dtype=np.uint8).reshape(-1, 1, 1, 3)
        self.server.scene.add_line_segments(
            name,
            ends.reshape(-1, 2, 3).astype(np.float32),
            np.broadcast_to(each, ends.shape).reshape(-1, 2, 3),
            thickness=2.0,
            thickness_units="screen",
        )
