"""Scenes as a page in the browser: a server on this machine alone, for who knows its token (extra `viz`).

viser serves the page and the stream behind it on one port. It asks nobody who he is, so every request is
checked before viser sees it: the first one carries the token in its address and gets a cookie, all others
bring the cookie. Other users of the machine, and pages of other sites in the same browser, have neither.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from sparse3d.errors import require_extra
from sparse3d.viewers.colors import class_color
from sparse3d.viewers.scene import COLORINGS, TRUTH_COLOR, Boxes, Scene, box_lines

HOST = "127.0.0.1"
_patching = threading.Lock()


class SceneServer:
    """Shows one of several scenes at a time; `url` opens it. `close()` ends it."""

    def __init__(self, count: int, scene: Callable[[int], Scene], port: int = 0, start: int = 0):
        """`scene(i)` for i in [0, count) is called when it is to be seen. Port 0: one that is free."""
        viser = require_extra("viser", "viz")
        self.token = secrets.token_urlsafe(24)
        self._scene, self._lock = scene, threading.Lock()
        self._server = _guarded_server(viser, port, self.token)
        self.port: int = self._server.get_port()
        gui = self._server.gui
        self._frame = gui.add_slider("frame", 0, max(count - 1, 1), 1, start, disabled=count < 2)
        self._color = gui.add_dropdown("colour", ("most telling", *COLORINGS))
        self._size = gui.add_slider("point size (m)", 0.01, 0.3, 0.01, 0.05)
        self._truth = gui.add_checkbox("labelled boxes", True)
        self._title = gui.add_markdown("")
        for control in (self._frame, self._color, self._size, self._truth):
            control.on_update(lambda event: self.show())
        self._server.scene.set_up_direction("+z")
        self._server.initial_camera.position = (-16.0, 0.0, 11.0)
        self._server.initial_camera.look_at = (14.0, 0.0, -2.0)
        self.show()

    @property
    def url(self) -> str:
        """The address with the token in it."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def show(self) -> None:
        """Draw what the controls ask for."""
        with self._lock, self._server.atomic():
            scene = self._scene(int(self._frame.value))
            wanted = self._color.value
            by = wanted if wanted in scene.colorings else scene.colorings[0]
            finite = np.isfinite(scene.points[:, :3]).all(axis=1)
            self._server.scene.add_point_cloud(
                "/points",
                scene.points[finite, :3].astype(np.float32),
                scene.colors(by)[finite],
                point_size=self._size.value,
                point_shape="rounded",
            )
            self._lines("/found", scene.found, None)
            self._lines("/labelled", scene.truth if self._truth.value else Boxes.none(), TRUTH_COLOR)
            rows = [f"- {row.text}" for row in scene.legend(by, self._truth.value)]
            self._title.content = "\n".join([f"**{scene.title}**, by {by}", "", *rows])

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._server.sleep_forever()

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def _lines(self, name: str, boxes: Boxes, color: tuple[int, int, int] | None) -> None:
        ends = box_lines(boxes.boxes)
        colors = [color or class_color(label) for label in boxes.labels.tolist()]
        each = np.array(colors, dtype=np.uint8).reshape(-1, 1, 1, 3)
        self._server.scene.add_line_segments(
            name,
            ends.reshape(-1, 2, 3).astype(np.float32),
            np.broadcast_to(each, ends.shape).reshape(-1, 2, 3),
            thickness=2.0,
            thickness_units="screen",
        )


def _guarded_server(viser: Any, port: int, token: str) -> Any:
    """A viser server on the loopback address whose every request passes `admit` first."""
    import websockets.asyncio.server as sockets

    serve = sockets.serve

    def guarded(*arguments: Any, process_request: Any, **options: Any) -> Any:
        def check(connection: Any, request: Any) -> Any:
            cookie = f"sparse3d_{connection.local_address[1]}"
            if not admit(token, cookie, request.path, request.headers.get_all("Cookie")):
                text = "this page needs the address with the token that `sparse3d view` printed\n"
                return connection.respond(HTTPStatus.FORBIDDEN, text)
            response = process_request(connection, request)
            if response is not None:
                response.headers["Set-Cookie"] = f"{cookie}={token}; HttpOnly; SameSite=Strict; Path=/"
            return response

        return serve(*arguments, process_request=check, **options)

    # viser has no place for a check of its own; it looks this function up when it starts.
    with _patching:
        sockets.serve = guarded  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return viser.ViserServer(host=HOST, port=port, verbose=False)
        finally:
            sockets.serve = serve


def admit(token: str, cookie: str, path: str, cookies: Sequence[str]) -> bool:
    """True for a request whose address or whose cookie of this name has the token."""
    given = parse_qs(urlsplit(path).query).get("token", [])
    for line in cookies:
        jar: SimpleCookie = SimpleCookie()
        jar.load(line)
        given += [jar[cookie].value] if cookie in jar else []
    return any(secrets.compare_digest(token.encode(), word.encode()) for word in given)
