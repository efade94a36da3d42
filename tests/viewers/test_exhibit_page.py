"""Pages that are served, in a browser: what is seen there, and who sees it."""

import re
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("viser")

from sparse3d.data.three_spheres import trace  # noqa: E402
from sparse3d.geometry.material import Material  # noqa: E402
from sparse3d.viewers.exhibit import (  # noqa: E402
    UP,
    Exhibit,
    Lines,
    Points,
    Viewpoint,
    before,
    exhibit_of_mesh,
    exhibit_of_splats,
)
from sparse3d.viewers.exhibit_page import ExhibitServer, packed_for_viser  # noqa: E402
from sparse3d.viewers.guard import GuardedServer  # noqa: E402
from sparse3d.viewers.panel import Curve, plain  # noqa: E402
from sparse3d.viewers.rendered import camera_of  # noqa: E402
from sparse3d.viewers.seen import Seen, Sight, paint  # noqa: E402
from sparse3d.viewers.still import draw_exhibit  # noqa: E402
from sparse3d.viewers.tones import before_tone_mapping  # noqa: E402
from tests.viewers.conftest import screenshot  # noqa: E402
from tests.viewers.spheres import sphere_cloud, sphere_mesh, textured_mesh  # noqa: E402

pytestmark = pytest.mark.slow  # all of them together

# Where nothing of viser's own lies over the picture: its panel, its hint about software, its axes.
CLEAR = slice(160, 400), slice(20, 500)
SIZE = 840, 480
LIGHT = (255, 255, 255)


@pytest.fixture(scope="module")
def shown(tab):
    """A server that shows the spheres, and the browser that looks at it."""
    tab.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})
    exhibit = replace(exhibit_of_mesh("three * spheres", sphere_mesh()), background=LIGHT)
    server = ExhibitServer(exhibit, sight=Sight(spheres_seen, np.zeros(3), 0.75))
    tab.asked.clear()
    tab.goto(server.url)
    (client,) = connected(server, tab)
    yield server, client
    server.close()


def connected(server, page, wanted=1):
    """The browsers, when there are so many and all of them stand where one stands first."""
    eye = server._exhibit.viewpoint.eye
    for _ in range(1200):
        clients = list(server.server.get_clients().values())
        if len(clients) == wanted and all(np.allclose(c.camera.position, eye, atol=1e-4) for c in clients):
            return clients
        page.wait_for_timeout(25)
    raise AssertionError(f"{len(clients)} browsers are there, not {wanted} where they should be")


def comes_close(page, wanted, to):
    """The page shows `wanted` (H, W, 3) up to a mean difference of `to`, soon."""
    soon(page, lambda: np.abs(screenshot(page) - wanted)[CLEAR].mean(), 0, to)


def soon(page, measure, low, high):
    """A measure of the page lies between two numbers, as soon as the browser has drawn what it was sent."""
    for _ in range(200):
        found = measure()
        if low <= found < high:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it is {found:.2f}, expected from {low:.2f} to {high:.2f}")


def on_page(exhibit, client):
    """Our own picture from where a browser's camera stands, on the colour of the page."""
    rows = SIZE[1]
    camera = camera_of(client.camera, rows)
    pose = camera.camera_to_world
    view = Viewpoint(pose[:3, 3], pose[:3, 3] + pose[:3, 2], -pose[:3, 1], np.degrees(client.camera.fov))
    return np.asarray(draw_exhibit(replace(exhibit, viewpoint=view), SIZE, title=False)).astype(float)


def test_triangles_and_the_mouse(shown, page):
    server, client = shown
    exhibit = server._exhibit
    first = on_page(exhibit, client)
    # Also that colours come out as they went in, which viser's own tones would change by 20.
    comes_close(page, first, to=1.5)
    assert np.abs(first - 255)[CLEAR].mean() > 30
    width, height = SIZE
    eye = np.array(client.camera.position)
    page.mouse.move(width / 3, height / 2)
    page.mouse.down()
    page.mouse.move(width / 3 - 120, height / 2 - 20, steps=4)
    page.mouse.up()
    soon(page, lambda: np.linalg.norm(client.camera.position - eye), 0.5, np.inf)

    def moved():
        before = np.array(client.camera.position)
        page.wait_for_timeout(200)
        return np.linalg.norm(client.camera.position - before)

    soon(page, moved, 0, 1e-12)  # it swings out
    turned = on_page(exhibit, client)
    assert np.abs(turned - first)[CLEAR].mean() > 10
    comes_close(page, turned, to=1.5)
    distance = np.linalg.norm(client.camera.position - exhibit.viewpoint.target)
    assert distance == pytest.approx(exhibit.viewpoint.distance, rel=1e-3)
    assert page.get_by_text("three * spheres").count() == 1, "a name is a name, not Markdown"


def test_nobody_but_the_server_is_asked_for_anything(shown, page):
    server, _ = shown
    page.goto(server.url)
    connected(server, page)
    hosts = {re.sub(r"^(blob:)?(\w+://[^/]*).*", r"\2", url) for url in page.asked}
    assert hosts == {f"http://127.0.0.1:{server.port}"}


def test_meshes_of_every_paint_and_what_comes_instead(shown, page):
    """A texture, a material, nothing; then points and lines in their place, then something that is not there
    is gone."""
    server, _ = shown
    (client,) = server.server.get_clients().values()
    exhibit = replace(exhibit_of_mesh("panel", textured_mesh()), background=LIGHT)
    server.show(exhibit)
    comes_close(page, on_page(exhibit, client), to=25)  # as viser's tones have it
    paint = Material((0.2, 0.5, 0.8))
    server.show(replace(exhibit, meshes=(replace(textured_mesh(), material=paint, uv=None),)))
    comes_close(page, on_page(server._exhibit, client), to=2)
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 3))
    points = Points(places, np.full((3000, 3), 30, np.uint8), 0.08)
    server.show(Exhibit("points", exhibit.viewpoint, points=points, background=LIGHT))
    comes_close(page, on_page(server._exhibit, client), to=20)  # round here, squares there
    ends, green = np.array([[[-1.0, 0, 0], [1, 0, 0]]]), np.array([[0, 200, 0]], np.uint8)
    server.show(Exhibit("a line", exhibit.viewpoint, lines=Lines(ends, green), background=LIGHT))
    soon(page, lambda: (screenshot(page)[CLEAR].min(2) < 100).sum(), 20, 3000)  # a line and nothing else


def test_gaussians_and_what_they_become(shown, page):
    server, _ = shown
    (client,) = server.server.get_clients().values()
    exhibit = exhibit_of_splats("spheres", sphere_cloud(degree=0), UP["z"])
    exhibit = replace(exhibit, background=LIGHT, drawing=replace(exhibit.drawing, mode="classic"))
    server.show(exhibit)
    wanted = on_page(exhibit, client)
    visible = np.abs(wanted - 255)[CLEAR].mean()
    comes_close(page, wanted, to=0.12 * visible)
    fewer = replace(exhibit, splats=exhibit.splats[:400])
    server.show(fewer)
    comes_close(page, on_page(fewer, client), to=0.12 * visible)
    steps = np.arange(5)
    server.losses.show([Curve("loss", steps, 1 / (1 + steps)), Curve("color", steps, 1 / (2 + steps))])
    server.losses.show([Curve("loss", np.arange(9), np.ones(9)), Curve("color", np.arange(9), np.ones(9))])
    page.get_by_text("losses").wait_for()
    assert len(server.losses.chart.data[0]) == 9


def test_pictures_that_are_drawn_here(shown, page):
    server, _ = shown
    (client,) = server.server.get_clients().values()
    camera = camera_of(client.camera, SIZE[1])
    try:
        for kind in ("colour", "normal"):
            server._kind.value = kind
            wanted = paint(spheres_seen(camera), kind, camera, *server.pictures.sight.depths(camera))
            comes_close(page, wanted.astype(float), to=2.5)
    finally:
        server._kind.value = "what is there"


def spheres_seen(camera):
    y, x = np.mgrid[: camera.height, : camera.width]
    rays = camera.unproject(np.stack([x, y], -1).reshape(-1, 2) + 0.5)
    origins = np.broadcast_to(camera.camera_to_world[:3, 3], rays.shape)
    colors, way = trace(origins, rays @ camera.camera_to_world[:3, :3].T)
    shape = camera.height, camera.width
    known = np.isfinite(way)
    depth = np.where(known, way, 0) * rays[:, 2]
    return Seen(colors.reshape(*shape, 3), depth.reshape(shape), known.reshape(shape).astype(float))


def test_a_browser_that_goes_in_the_middle_of_a_picture_leaves_the_server_well(page):
    begun, go_on = threading.Event(), threading.Event()

    def see(camera):
        begun.set()
        assert go_on.wait(30)
        return spheres_seen(camera)

    exhibit = Exhibit("slow", before(np.zeros(3), 2.4, UP["z"]), background=LIGHT)
    server = ExhibitServer(exhibit, sight=Sight(see, np.zeros(3), 0.75), objects=False)
    try:
        page.goto(server.url)
        connected(server, page)
        assert begun.wait(30)
        page.goto("about:blank")
        connected(server, page, wanted=0)
        go_on.set()
        # So do those who go before they have said anything.
        for words in (b"", b"GET /", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                client.sendall(words)
        page.goto(server.url)
        (client,) = connected(server, page)
        camera = camera_of(client.camera, SIZE[1])
        wanted = paint(spheres_seen(camera), "colour", camera, 0, 1)
        comes_close(page, wanted.astype(float), to=2.5)
    finally:
        server.close()


def test_without_the_token_there_is_no_page(page):
    server = ExhibitServer(exhibit_of_mesh("secret", sphere_mesh(rings=4)))
    try:
        for wrong in ("/", "/?token=" + "x" * 32, server.url.split(str(server.port))[1][:-1]):
            answer = page.goto(f"http://127.0.0.1:{server.port}{wrong}")
            assert answer.status == 403 and "needs the address with the token" in page.text_content("body")
        assert not server.server.get_clients()
    finally:
        server.close()


def test_a_port_in_use_is_told():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is in use; choose another"):
            GuardedServer(port)
    for port, host, message in (
        (70000, "127.0.0.1", "port 70000: there are 1 to 65535"),
        (0, "192.0.2.1", "cannot listen on port 0 of 192.0.2.1"),
        (0, "no.such.host.invalid", "cannot listen on port 0 of no.such.host.invalid"),
    ):
        with pytest.raises(ValueError, match=message):
            GuardedServer(port, host)


def test_a_port_that_was_asked_for_is_the_one():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    server = GuardedServer(port)
    assert server.port == port and f"127.0.0.1:{port}/?token={server.token}" in server.url
    server.close()


def test_words_are_words():
    assert plain("![a](b) <i> {c} *d* _e_ 1.5 (2)") == r"\!\[a\](b) \<i\> \{c\} \*d\* \_e\_ 1.5 (2)"


def test_covariances_of_any_size_keep_their_digits():
    cloud = sphere_cloud(50, degree=0)
    for size in (1e-4, 1.0, 1e3):
        scaled = replace(cloud, scales=cloud.scales + float(np.log(size)), means=cloud.means * size)
        scale, packed = packed_for_viser(scaled)
        spread = packed[:, 4:7].copy().view(np.float16).astype(float)[:, [0, 3, 5]].sum(1) * scale**2
        wanted = (2 * scaled.scales).exp().sum(1).numpy()
        assert spread == pytest.approx(wanted, rel=2e-3)
        means = packed[:, :3].copy().view(np.float32) * scale
        assert means == pytest.approx(scaled.means.numpy(), rel=1e-5, abs=1e-6 * size)


def test_tones_have_an_inverse():
    """The fit as Stephen Hill wrote it down, of what comes before it."""
    grey = np.linspace(0, 0.99, 50)[:, None] * np.ones(3)
    mixed = np.clip(grey + np.random.default_rng(0).normal(0, 0.03, grey.shape), 0, 1)
    into = np.array([[0.59719, 0.35458, 0.04823], [0.076, 0.90834, 0.01566], [0.0284, 0.13383, 0.83777]])
    back = np.array(
        [[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]]
    )
    for seen in (grey, mixed):
        v = before_tone_mapping(seen) / 0.6 @ into.T
        fitted = (v * (v + 0.0245786) - 0.000090537) / (v * (0.983729 * v + 0.4329510) + 0.238081) @ back.T
        assert np.abs(np.clip(fitted, 0, 1) - seen).max() < 0.01
