"""Pictures that are drawn for browsers: coarse first, whole in the end, begun anew when somebody moves."""

from types import SimpleNamespace

import numpy as np
import pytest

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.orbits import looking
from sparse3d.viewers import rendered
from sparse3d.viewers.rendered import PictureServer, camera_of
from sparse3d.viewers.seen import Seen, Sight, paint

UPRIGHT = (0.5, -0.5, 0.5, -0.5)  # of a camera that looks along +x with +z up


class Page:
    """What viser has of a browser."""

    def __init__(self, number=1, rows=300, aspect=1.5):
        self.client_id, self.pictures, self.moved = number, [], []
        self.camera = SimpleNamespace(
            wxyz=np.array(UPRIGHT), position=np.zeros(3), fov=1.0, aspect=aspect, image_height=rows
        )
        self.camera.on_update = self.moved.append
        self.scene = SimpleNamespace(set_background_image=lambda image, *a, **b: self.pictures.append(image))

    def flush(self):
        pass

    def move(self, *place):
        self.camera.position = np.array(place)
        for told in self.moved:
            told(self.camera)


class Pages:
    """What viser has of a server."""

    def __init__(self, *pages):
        self.pages = {page.client_id: page for page in pages}
        self.on_client_connect = lambda welcome: [welcome(page) for page in pages]
        self.on_client_disconnect = lambda forget: setattr(self, "forget", forget)

    def get_clients(self):
        return self.pages

    def lose(self, page):
        del self.pages[page.client_id]
        self.forget(page)


def position(camera):
    """Each pixel tells where it is: a picture in bands must be the picture as a whole."""
    y, x = np.mgrid[: camera.height, : camera.width]
    rays = camera.unproject(np.stack([x, y], -1).reshape(-1, 2) + 0.5)
    shape = camera.height, camera.width
    return Seen(rays.reshape(*shape, 3) / 2 + 0.5, np.ones(shape), np.ones(shape))


@pytest.fixture
def clock(monkeypatch):
    """Time that passes where pictures are drawn alone: 30,000 pixels a second, whatever this machine does."""
    now = [0.0]
    monkeypatch.setattr(rendered.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def served(clock):
    def start(*pages, see=position, server=None, **options):
        def slowly(camera):
            clock[0] += camera.width * camera.height / 30_000
            return see(camera)

        return PictureServer(server or Pages(*pages), Sight(slowly, np.zeros(3), 1.0), **options)

    return start


def drain(pictures):
    for count in range(10_000):
        if not pictures.draw_next():
            return count
    raise AssertionError("it never ends")


def test_a_coarse_picture_comes_first_and_a_whole_one_last(served):
    page = Page()
    drain(served(page))
    rows = [len(picture) for picture in page.pictures]
    assert rows == sorted(rows) and rows[0] < 150 and rows[-1] == 300 and len(rows) >= 2
    assert page.pictures[-1].shape == (300, 450, 3)
    whole = camera_of(page.camera, 300)
    assert np.array_equal(page.pictures[-1], paint(position(whole), "colour", whole, 0, 1))


def test_nothing_is_drawn_when_nothing_changes_and_all_anew_when_it_does(served):
    page = Page()
    pictures = served(page)
    drain(pictures)
    before = len(page.pictures)
    assert drain(pictures) == 0
    page.move(1, 2, 3)
    drain(pictures)
    assert len(page.pictures) > before
    pictures.renew(kind=None)
    assert drain(pictures) == 1 and page.pictures[-1] is None, "what the browser draws itself is alone again"


def test_who_moves_does_not_wait_for_the_picture_from_where_he_was(served):
    page = Page()
    pictures = served(page)
    while not page.pictures:
        pictures.draw_next()
    pictures.draw_next()  # a band of the finer one
    page.move(5, 0, 0)
    begun = len(page.pictures)
    while len(page.pictures) == begun:
        pictures.draw_next()
    assert len(page.pictures[-1]) == len(page.pictures[0]), "the one that was begun is not ended"


def test_everybody_has_a_coarse_picture_before_anybody_has_a_fine_one(served):
    pages = Page(1), Page(2), Page(3)
    pictures = served(*pages)
    while not any(page.pictures and len(page.pictures[-1]) == 300 for page in pages):
        assert pictures.draw_next()
    assert all(page.pictures for page in pages)


def test_a_browser_that_goes_in_the_middle_of_a_picture_is_forgotten(served):
    pages = Page(1), Page(2)
    server = Pages(*pages)

    def see(camera):
        if 1 in server.pages:
            server.lose(pages[0])
        return position(camera)

    pictures = served(see=see, server=server)
    drain(pictures)
    assert pages[0].pictures == [] and len(pages[1].pictures[-1]) == 300


def test_a_view_that_cannot_be_drawn_ends_nobody_elses(served, caplog):
    pages = Page(1), Page(2)

    def see(camera):
        if camera.camera_to_world[0, 3] == 7:
            raise ValueError("from within")
        return position(camera)

    pictures = served(*pages, see=see)
    pages[0].move(7, 0, 0)
    drain(pictures)
    assert "from within" in caplog.text and pages[0].pictures == [] and len(pages[1].pictures[-1]) == 300
    pages[0].move(0, 0, 0)
    drain(pictures)
    assert len(pages[0].pictures[-1]) == 300


def test_cameras_are_those_of_the_page():
    camera = camera_of(Page(rows=200).camera, 100)
    assert (camera.width, camera.height) == (150, 100)
    (pixel,), (depth,) = camera.project(np.array([[10.0, 1.0, 2.0]]))  # ahead, left, above
    focal = 50 / np.tan(0.5)
    assert pixel == pytest.approx((75 - focal / 10, 50 - focal / 5)) and depth == pytest.approx(10)


def test_depth_and_normals_are_painted():
    pose = looking(np.array([0.0, -4, 0]), np.zeros(3), np.array([0.0, 0, 1]))
    camera = Camera(50, 50, 20, 15, 40, 30, pose)
    shape = (30, 40)
    wall = Seen(
        np.zeros((*shape, 3)), np.full(shape, 4.0), np.where(np.arange(40) < 20, 1.0, 0.0) * np.ones(shape)
    )
    normal = paint(wall, "normal", camera, 3, 5)
    assert (normal[5:25, 5:15] == (128, 0, 128)).all(), "across the wall to the eye: -y"
    assert (normal[:, 25:] == 0).all() or (normal[5:25, 25:35] == normal[10, 30]).all()
    depth = paint(wall, "depth", camera, 3, 5)
    nearer = paint(wall._replace(depth=wall.depth - 0.9), "depth", camera, 3, 5)
    assert (depth[:, 20:] == 0).all() and nearer[0, 0].sum() > depth[0, 0].sum() > 0
