"""The page in the browser: for this machine and who knows the token; it shows what its controls say."""

import http.client
import socket

import numpy as np
import pytest

pytest.importorskip("viser")

from sparse3d.viewers.browser import SceneServer
from sparse3d.viewers.guard import admit  # noqa: E402
from sparse3d.viewers.scene import Boxes, Scene  # noqa: E402


def scene(number):
    boxes = Boxes(np.array([[5.0, 0, 0, 4, 2, 2, 0]] * number).reshape(-1, 7), np.zeros(number, int))
    points = np.full((10 + number, 4), number, dtype=np.float32)
    points[0] = np.nan
    return Scene(f"frame {number}", points, found=boxes, truth=boxes, box_classes=("Car",))


@pytest.fixture(scope="module")
def server():
    made = SceneServer(3, scene)
    yield made
    made.close()


def ask(server, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.getheader("Set-Cookie")


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    "Sec-WebSocket-Version": "13",
}


def test_the_token_opens_the_page_and_the_cookie_the_rest(server):
    status, body, cookie = ask(server, "/?token=" + server.token)
    assert status == 200 and b"<html" in body.lower()
    assert cookie is not None and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert ask(server, Cookie=cookie.split(";")[0])[0] == 200
    assert server.url == f"http://127.0.0.1:{server.port}/?token={server.token}"


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/index.html", "/?tokens={token}"])
def test_without_the_token_there_is_nothing(server, path):
    status, body, cookie = ask(server, path.replace("{token}", server.token))
    assert status == 403 and cookie is None and server.token.encode() not in body and b"sparse3d view" in body


def test_the_stream_behind_the_page_is_guarded_too(server):
    assert ask(server, "/", **UPGRADE)[0] == 403
    assert ask(server, "/", **UPGRADE, Cookie=f"sparse3d_{server.port}=guess")[0] == 403
    handshake = "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items())
    for cookie, status in ((f"Cookie: sparse3d_{server.port}={server.token}\r\n", b"101"), ("", b"403")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{handshake}{cookie}\r\n".encode())
            assert client.recv(100).split()[1] == status


def test_only_this_machine_reaches_it(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        assert client.getpeername()[0] == "127.0.0.1"
    # Another address of this machine, as others would see it: 127.0.0.2 is on Linux's loopback as well.
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", server.port), timeout=5):
        pass


def test_another_model_takes_over(server):
    def other(number):
        made = scene(number)
        return Scene(f"![better]({number})", made.points, found=made.found, box_classes=("Van",))

    server.replace(other)
    try:
        assert "\\!\\[better\\]" in server._title.content, "as words, not as a picture"
    finally:
        server.replace(scene)


def test_two_servers_have_two_tokens(server):
    other = SceneServer(1, scene)
    try:
        assert other.token != server.token and len(other.token) >= 32
        assert ask(other, "/?token=" + server.token)[0] == 403
    finally:
        other.close()


def test_controls_change_what_is_shown(server):
    assert "frame 0" in server._title.content
    server._frame.value = 2
    server.show()
    assert "frame 2" in server._title.content and "Car (2)" in server._title.content
    assert "labelled (2)" in server._title.content
    server._truth.value = False
    server.show()
    assert "labelled" not in server._title.content


@pytest.mark.parametrize(
    ("path", "cookies", "open_"),
    [
        ("/?token=secret", [], True),
        ("/a/b?x=1&token=secret", [], True),
        ("/", ["a=b; sparse3d_1=secret"], True),
        ("/", ["other=secret"], False),
        ("/?token=secre", ["sparse3d_1=secrets"], False),
        ("/secret", [], False),
    ],
)
def test_who_is_let_in(path, cookies, open_):
    assert admit("secret", "sparse3d_1", path, cookies) is open_
