"""Pictures that are drawn here for the camera of each browser: coarse while it moves, fine when it rests.

A picture is drawn in bands of rows, one at a time, whoever asks. Before each of them is looked at what is
wanted now: a camera that has moved, another kind of picture or a browser that has gone ends what was begun,
and coarse pictures come first, so that everybody sees that something happens.
"""

import logging
import math
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.rigid import rigid, rotation_from_quaternion
from sparse3d.viewers.seen import Kind, Seen, Sight, paint

_log = logging.getLogger(__name__)
_COARSE = 0.12  # seconds that the first picture of a view may take
_BAND = 0.12  # seconds that a band may take
_FINER = 3.0  # times the rows and columns of the picture before
_LEAST = 48  # rows
_CHUNK = 4  # rows, the least of a band


@dataclass
class _Job:
    """A picture that is being drawn: of which view, and the bands so far."""

    view: int
    camera: Camera
    bands: list[Seen] = field(default_factory=list)

    @property
    def top(self) -> int:
        """Rows that are drawn."""
        return sum(len(band.depth) for band in self.bands)


@dataclass
class _Watcher:
    """A browser: which view it wants (a number that grows), and of which one it has how many rows."""

    client: Any
    wanted: int = 1
    has: int = 0
    rows: int = 0
    job: _Job | None = None


@dataclass
class PictureServer:
    """Draws a sight, as `kind` says, behind everything else in the browsers of a viser server."""

    server: Any
    sight: Sight
    kind: Kind | None = "colour"  # None: nothing is drawn
    most: int = 900  # rows of the finest picture
    _watchers: dict[int, _Watcher] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _work: threading.Event = field(default_factory=threading.Event)
    _rate: float = 20_000.0  # pixels a second, as measured
    _closed: bool = False

    def __post_init__(self):
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(self._forget)

    def _welcome(self, client: Any) -> None:
        watcher = _Watcher(client)
        with self._lock:
            self._watchers[client.client_id] = watcher
        self._work.set()

        @client.camera.on_update
        def _(camera: Any) -> None:
            watcher.wanted += 1
            self._work.set()

    def _forget(self, client: Any) -> None:
        with self._lock:
            self._watchers.pop(client.client_id, None)
        self._work.set()

    def renew(self, **changes: Any) -> None:
        """With another `sight` or `kind`: everybody wants a new picture."""
        for name, value in changes.items():
            setattr(self, name, value)
        for watcher in self._all():
            watcher.wanted += 1
        self._work.set()

    def run(self) -> None:
        """Draw until it is closed; for a thread of its own."""
        while not self._closed:
            if not self.draw_next():
                self._work.wait()
                self._work.clear()

    def close(self) -> None:
        """End `run`."""
        self._closed = True
        self._work.set()

    def draw_next(self) -> bool:
        """Draw a band of the picture that is missed most, a coarse one before all others; False where there
        is none to draw."""
        waiting = [w for w in self._all() if w.has < w.wanted or w.rows < self._full(w)]
        if not waiting or self._closed:
            return False
        watcher = min(waiting, key=lambda w: w.rows if w.has == w.wanted else 0)
        view = watcher.wanted
        try:
            if self.kind is None:
                self._send(watcher, None)
                watcher.has, watcher.rows, watcher.job = view, self._full(watcher), None
            else:
                self._draw(watcher, view, self.kind)
        except Exception:
            # One view, say of a lens within a thing, must not end those of all others.
            _log.exception("a picture could not be drawn")
            watcher.has, watcher.rows, watcher.job = view, self._full(watcher), None
        return True

    def _all(self) -> list[_Watcher]:
        with self._lock:
            return list(self._watchers.values())

    def _full(self, watcher: _Watcher) -> int:
        return max(1, min(int(watcher.client.camera.image_height), self.most))

    def _draw(self, watcher: _Watcher, view: int, kind: Kind) -> None:
        """One band more; the picture goes out with its last one."""
        sight = self.sight
        if watcher.job is None or watcher.job.view != view:
            former = watcher.rows if watcher.has == view else 0
            watcher.job = _Job(view, camera_of(watcher.client.camera, self._rows(watcher, former)))
        job, camera = watcher.job, watcher.job.camera
        high = max(_CHUNK, int(self._rate * _BAND / camera.width))
        high = min(high, camera.height - job.top)
        begin = time.perf_counter()
        job.bands.append(sight.see(replace(camera, cy=camera.cy - job.top, height=high)))
        seconds = max(time.perf_counter() - begin, 1e-6)
        self._rate += 0.5 * (high * camera.width / seconds - self._rate)
        if job.top < camera.height:
            return
        whole = Seen(*(np.concatenate(parts) for parts in zip(*job.bands, strict=True)))
        self._send(watcher, paint(whole, kind, camera, *sight.depths(camera)))
        watcher.has, watcher.rows, watcher.job = view, camera.height, None

    def _rows(self, watcher: _Watcher, former: int) -> int:
        """Of the picture that comes next."""
        full = self._full(watcher)
        if former:
            rows = math.ceil(former * _FINER)
            return full if rows * 1.5 >= full else rows
        aspect = max(watcher.client.camera.aspect, 1e-3)
        return min(full, max(_LEAST, int(math.sqrt(self._rate * _COARSE / aspect))))

    def _send(self, watcher: _Watcher, picture: np.ndarray | None) -> None:
        if watcher.client.client_id in self.server.get_clients():
            watcher.client.scene.set_background_image(picture, "jpeg", jpeg_quality=90)
            watcher.client.flush()


def camera_of(seen_from: Any, rows: int) -> Camera:
    """The pinhole of a viser camera, with a picture of so many rows."""
    columns = max(1, round(rows * seen_from.aspect))
    focal = rows / 2 / math.tan(seen_from.fov / 2)
    rotation = rotation_from_quaternion(np.asarray(seen_from.wxyz, dtype=np.float64))
    pose = rigid(rotation, np.asarray(seen_from.position, dtype=np.float64))
    return Camera(focal, focal, columns / 2, rows / 2, columns, rows, pose)
