"""The page in one file, in a browser: it shows what our own renderers show, follows the mouse, and asks
nobody for anything."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sparse3d.gaussians.render import SplatConfig
from sparse3d.geometry.material import Material
from sparse3d.viewers import html_page
from sparse3d.viewers.exhibit import (
    UP,
    Exhibit,
    Lines,
    Points,
    Viewpoint,
    exhibit_of_mesh,
    exhibit_of_scene,
    exhibit_of_splats,
)
from sparse3d.viewers.html_page import page_of, write_html
from sparse3d.viewers.scene import Boxes, LegendRow, Scene
from sparse3d.viewers.still import draw_exhibit
from tests.viewers.conftest import SIZE, screenshot
from tests.viewers.spheres import sphere_cloud, sphere_mesh, textured_mesh

FAR = (4e5, 5.4e6, 120.0)  # as maps count metres
EXHIBITS = {
    "triangles": exhibit_of_mesh("triangles", sphere_mesh()),
    "shaded": exhibit_of_mesh("shaded", sphere_mesh(colors=False)),
    "gaussians": exhibit_of_splats("gaussians", sphere_cloud(), UP["z"]),
    "classic": exhibit_of_splats("classic", sphere_cloud(degree=3), UP["-y"], SplatConfig(mode="classic")),
    # Smaller than pixels: what the blur takes from them decides how much is seen.
    "fine": exhibit_of_splats("fine", sphere_cloud(9000, size=0.1), UP["z"]),
    "plain": exhibit_of_splats("plain", sphere_cloud(degree=0), UP["y"]),
    "texture": exhibit_of_mesh("texture", textured_mesh()),
    "lit texture": exhibit_of_mesh("lit texture", textured_mesh(unlit=False)),
    "material": exhibit_of_mesh(
        "material", replace(sphere_mesh(colors=False), material=Material((0.9, 0.6, 0.1), unlit=False))
    ),
    "points": Exhibit(
        "points",
        Viewpoint((FAR[0], FAR[1] - 3, FAR[2] + 1), FAR),
        points=Points(sphere_mesh(rings=12).vertices + np.array(FAR), sphere_mesh(rings=12).colors, 0.05),
    ),
}


def opened(page, exhibit, folder, part="#bare"):
    write_html(folder / "page.html", exhibit)
    page.goto(f"{(folder / 'page.html').as_uri()}{part}")
    page.evaluate("window.sparse3d.ready")
    assert page.text_content("#message") == ""


def apart(page, exhibit, view=None):
    """Mean difference of the page from our own picture, of 255; and how much there is to be seen at all."""
    if view is not None:
        exhibit = Exhibit(**{**vars(exhibit), "viewpoint": view})
    wanted = np.asarray(draw_exhibit(exhibit, SIZE, title=False)).astype(float)
    seen = screenshot(page)
    inner = slice(4, -4), slice(4, -4)  # a page that keys go to has a frame
    return np.abs(seen - wanted)[inner].mean(), np.abs(wanted - exhibit.background)[inner].mean()


def view_of(page, exhibit):
    """Where the page's camera is now."""
    camera = page.evaluate("window.sparse3d.camera()")
    return Viewpoint(camera["eye"], camera["target"], camera["up"], exhibit.viewpoint.field_of_view)


def settle(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("name", EXHIBITS)
def test_the_page_shows_what_our_renderers_show(page, tmp_path, name):
    opened(page, EXHIBITS[name], tmp_path)
    difference, shown = apart(page, EXHIBITS[name])
    # What is left: edges, smoothed in another way, and Gaussians blended in steps of 1/255.
    assert shown > 2 and difference < 0.08 * shown
    assert page.asked == [(tmp_path / "page.html").as_uri()]


def test_surfels_are_thin_gaussians(page, tmp_path):
    exhibit = exhibit_of_splats("surfels", sphere_cloud(surfels=True), UP["z"])
    opened(page, exhibit, tmp_path)
    difference, shown = apart(page, exhibit)
    # Their own renderer meets them exactly, in perspective, and keeps those seen from the side a pixel wide.
    assert difference < 0.25 * shown


def test_the_mouse_turns_moves_and_zooms(page, tmp_path):
    exhibit = EXHIBITS["gaussians"]
    opened(page, exhibit, tmp_path)
    first = view_of(page, exhibit)
    width, height = SIZE
    page.mouse.move(width / 2, height / 2)
    page.mouse.down()
    page.mouse.move(width / 2 + 90, height / 2 + 30, steps=3)
    page.mouse.up()
    settle(page)
    turned = view_of(page, exhibit)

    def angles(view):
        x, y, z = np.subtract(view.eye, view.target) / view.distance
        return math.atan2(y, x), math.asin(z)

    (yaw, pitch), (before, lower) = angles(turned), angles(first)
    # The picture's height is half a turn; what one drags to the right goes to the right, so the eye left.
    assert math.remainder(yaw - before + math.pi * 90 / height, math.tau) == pytest.approx(0, abs=1e-5)
    assert pitch - lower == pytest.approx(math.pi * 30 / height, abs=1e-5)
    assert turned.target == pytest.approx(first.target) and turned.distance == pytest.approx(first.distance)
    difference, shown = apart(page, exhibit, turned)
    assert difference < 0.08 * shown and apart(page, exhibit)[0] > 0.3 * shown, "sorted anew, too"

    page.mouse.wheel(0, 300)
    settle(page)
    assert view_of(page, exhibit).distance == pytest.approx(first.distance * math.exp(0.3), rel=1e-5)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(width / 2 + 90 + 40, height / 2 + 30)
    page.mouse.up()
    page.keyboard.up("Shift")
    settle(page)
    moved = view_of(page, exhibit)
    camera = moved.camera(*SIZE)
    (pixel,), _ = camera.project(np.array([first.target]))
    assert pixel == pytest.approx((width / 2 + 40, height / 2), abs=1e-3), "it stays below the pointer"
    difference, shown = apart(page, exhibit, moved)
    assert difference < 0.1 * shown


def test_fingers_turn_and_pinch(page, tmp_path):
    exhibit = EXHIBITS["triangles"]
    opened(page, exhibit, tmp_path)
    first = view_of(page, exhibit)
    session = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (100, 100))
    touch("touchMove", (160, 100))
    touch("touchEnd")
    settle(page)
    turned = view_of(page, exhibit)
    assert turned.distance == pytest.approx(first.distance)
    assert np.linalg.norm(np.subtract(turned.eye, first.eye)) > 0.3
    touch("touchStart", (200, 180), (280, 180))
    touch("touchMove", (160, 180), (320, 180))
    touch("touchEnd")
    settle(page)
    assert view_of(page, exhibit).distance == pytest.approx(first.distance / 2, rel=1e-3)


def test_keys_and_switches(page, tmp_path):
    exhibit = EXHIBITS["triangles"]
    opened(page, exhibit, tmp_path, part="")
    first = view_of(page, exhibit)
    page.focus("#view")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    settle(page)
    assert view_of(page, exhibit).distance == pytest.approx(0.9 * first.distance)
    page.click("#reset")
    settle(page)
    assert view_of(page, exhibit).eye == pytest.approx(first.eye)
    page.select_option("#up", "y")
    settle(page)
    assert view_of(page, exhibit).up == (0, 1, 0)
    page.check("#other")
    page.uncheck("#layers input")
    settle(page)
    assert (screenshot(page)[:, 340:] == 255).all(), "nothing but the light background beside the panel"


def test_boxes_lines_and_words(page, tmp_path):
    title = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>{{data}}"
    boxes = Boxes(np.array([[6.0, 0, 0, 4, 2, 1.5, 0.3]]), np.array([0]))
    points = np.random.default_rng(0).uniform(-3, 3, (50, 4)).astype(np.float32)
    scene = Scene(title, points, found=boxes, truth=boxes, box_classes=("<b>Car</b>",))
    opened(page, exhibit_of_scene(scene), tmp_path, part="")
    assert page.title() == title and page.text_content("h1") == title
    assert page.locator("li").all_text_contents() == ["<b>Car</b> (1)", "labelled (1)"]
    assert page.locator("#layers label").all_text_contents() == [" 50 points", " boxes"]
    assert page.evaluate("window.hit === undefined")
    refused = """new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => done("sent"), 500));
    })"""
    assert page.evaluate(refused) == "connect-src"


def test_a_line_is_where_its_ends_are(page, tmp_path):
    view = Viewpoint((0, 0, 0), (0, 1, 0), field_of_view=90)
    # From before the eye to far behind it: cut off, not turned inside out.
    ends = np.array([[[1.0, 2, 1], [1, -8, 1]], [[-2, 4, -2], [2, 4, -2]]])
    lines = Lines(ends, np.array([[255, 0, 0], [0, 255, 0]], np.uint8))
    exhibit = Exhibit("", view, lines=lines, legend=(LegendRow("", (1, 2, 3), True),))
    opened(page, exhibit, tmp_path)
    seen, (width, height) = screenshot(page), SIZE
    focal = height / 2
    row = int(height / 2 + 2 / 4 * focal)
    across = np.flatnonzero((seen[row] == (0, 255, 0)).all(1))
    assert across.min() == pytest.approx(width / 2 - focal / 2, abs=2)
    assert across.max() == pytest.approx(width / 2 + focal / 2, abs=2)
    red = np.argwhere((seen == (255, 0, 0)).all(2))
    slope = (height / 2 - red[:, 0]) / (red[:, 1] - width / 2)
    assert len(red) > 50 and slope == pytest.approx(1, abs=0.05)
    assert red[:, 1].min() == pytest.approx(width / 2 + focal / 2, abs=3), "and goes on to the edge"


def test_more_than_a_page_holds_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(html_page, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="triangles.*simplify or thin it out"):
        write_html(tmp_path / "page.html", EXHIBITS["triangles"])
    monkeypatch.setattr(html_page, "MOST_SPLATS", 10)
    with pytest.raises(ValueError, match="1500 Gaussians"):
        write_html(tmp_path / "page.html", EXHIBITS["plain"])
    assert not any(tmp_path.iterdir())


def test_the_same_exhibit_is_the_same_page():
    assert page_of(EXHIBITS["plain"]) == page_of(EXHIBITS["plain"])
    assert "http" not in page_of(EXHIBITS["plain"]).replace("http-equiv", "")
