"""Rays that priors ask for: pairs in the order of a map, points where they were seen, views in between."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.data.photos import open_photos
from sparse3d.data.ray_loader import RayLoader
from sparse3d.data.three_spheres import DEPTH_UNIT, ThreeSpheresConfig, surface_distance, write_three_spheres
from sparse3d.fields.depth_priors import DepthRankingConfig, ScenePointsConfig, UnseenViewsConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.io.captures import ScenePoints
from sparse3d.recipes.radiance.config import PriorsConfig
from sparse3d.recipes.radiance.guides import GuideSource, between


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    write_three_spheres(folder, ThreeSpheresConfig(views=5, held_out=1, size=40, rays=1))
    return folder


@pytest.fixture(scope="module")
def photos(scene):
    return open_photos(scene, split="train", depths=scene / "depth", depth_unit=DEPTH_UNIT)


def source(photos, priors, tmp_path):
    return GuideSource(RayLoader(photos, 64, seed=3, cache_dir=tmp_path), priors, SpaceConfig())


def true_depth(aimed):
    """Depth along the optical axis of where the spheres are, inf beside them, by marching from outside."""
    origins, directions = aimed.rays.origins.double().numpy(), aimed.rays.directions.double().numpy()
    way = np.zeros(len(origins))
    for _ in range(200):
        way += surface_distance(origins + way[:, None] * directions)
    hit = surface_distance(origins + way[:, None] * directions) < 1e-4
    return np.where(hit, way * aimed.cosine.numpy(), np.inf)


@pytest.mark.parametrize("kind", ["depth", "disparity"])
def test_pairs_come_in_the_order_of_the_map_with_neighbours_of_like_depth(scene, photos, tmp_path, kind):
    if kind == "disparity":
        for path in (scene / "depth" / "train").glob("*.png"):
            other = tmp_path / "disparity" / "train" / path.with_suffix(".npy").name
            other.parent.mkdir(parents=True, exist_ok=True)
            depth = photos.depth([int(n[-3:]) for n in photos.names].index(int(path.stem[-3:])))
            np.save(other, 17 / depth)
        photos = open_photos(scene, split="train", depths=tmp_path / "disparity", depth_unit=1.0)
    config = DepthRankingConfig(groups=400, map=kind, reach=8)
    found = source(photos, PriorsConfig(ranking=config), tmp_path).at(5).ranked
    assert found is not None and 40 < len(found.cosine) < 1600 and len(found.cosine) % 4 == 0
    nearer, farther, beside_nearer, beside_farther = true_depth(found).reshape(-1, 4).T
    assert (farther - nearer > 0.015 * nearer).all()
    for one, other in ((nearer, beside_nearer), (farther, beside_farther)):
        step = np.abs(one - other)
        # One pixel is 4 cm wide here, and the spheres turn away at their edges.
        assert np.median(step) < 0.02 and (step < 0.3).all()
    pixels = torch.cat([found.rays.origins, found.rays.directions], 1).view(-1, 4, 6)
    assert (pixels[:, :, :3] == pixels[:, :1, :3]).all(), "all four of one photo"


def test_guides_follow_from_the_place_in_the_stream_alone(photos, tmp_path):
    priors = PriorsConfig(ranking=DepthRankingConfig(), unseen=UnseenViewsConfig())
    one, two = source(photos, priors, tmp_path), source(photos, priors, tmp_path)
    for earlier in (0, 64):
        one.at(earlier)
    for a, b in zip(one.at(128).rays(), two.at(128).rays(), strict=True):
        assert torch.equal(a.origins, b.origins) and torch.equal(a.directions, b.directions)
    assert not torch.equal(one.at(128).rays()[1].origins, one.at(192).rays()[1].origins)


def test_unseen_views_lie_between_the_cameras_and_look_at_what_these_look_at(photos):
    random = np.random.default_rng(0)
    views = between(photos.cameras, 100, np.zeros(3), 0.0, random)
    own = photos.cameras.origins
    distance = np.linalg.norm(views.origins, axis=1)
    assert np.allclose(distance, np.linalg.norm(own[0]))
    assert (views.origins[:, 2] >= own[:, 2].min() - 1e-9).all()
    rotations = views.camera_to_world[:, :3, :3]
    assert np.allclose(np.einsum("nji,njk->nik", rotations, rotations), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(rotations), 1)
    toward = -views.origins / distance[:, None]
    assert (np.einsum("ni,ni->n", toward, rotations[:, :, 2]) > 0.97).all()
    apart = between(photos.cameras, 100, np.zeros(3), 0.2, random)
    assert np.linalg.norm(apart.origins, axis=1).std() > 0.1


def test_cameras_that_face_each_other_have_views_between_them_too():
    turned = np.diag([-1.0, 1, -1, 1])
    turned[2, 3] = 2
    ahead = np.eye(4)
    ahead[2, 3] = -2
    two = Cameras.stack([Camera(50, 50, 10, 10, 20, 20, pose) for pose in (ahead, turned)])
    views = between(two, 50, np.zeros(3), 0.0, np.random.default_rng(0))
    assert np.isfinite(views.camera_to_world).all()
    assert np.allclose(np.linalg.det(views.camera_to_world[:, :3, :3]), 1)


def test_patches_hold_neighbouring_pixels(photos, tmp_path):
    config = UnseenViewsConfig(patches=3, side=4, stride=2)
    found = source(photos, PriorsConfig(unseen=config), tmp_path).at(0).unseen
    assert found is not None and len(found.cosine) == 48
    origins = found.rays.origins.view(3, 16, 3)
    assert (origins == origins[:, :1]).all()
    on_plane = found.rays.directions / found.cosine[:, None]
    step = (on_plane.view(3, 4, 4, 3)[:, :, 1:] - on_plane.view(3, 4, 4, 3)[:, :, :-1]).norm(dim=3)
    assert torch.allclose(step, torch.full_like(step, 2 / float(photos.cameras.focal[0, 0])), atol=1e-5)


def with_points(photos, positions, track):
    """The photos with scene points; `track` lists (point, view)."""
    point, view = np.array(track).T
    rows = np.array([photos.capture.views.index(v) for v in photos.views])
    pixel, _ = photos.cameras.project(positions[point], view)
    points = ScenePoints(
        positions,
        np.zeros((len(positions), 3), np.uint8),
        np.array([1.0, 3.0, np.nan]),
        point,
        rows[view],
        pixel,
    )
    return replace(photos, capture=replace(photos.capture, points=points))


def test_rays_to_scene_points_meet_them_and_points_of_one_photo_do_not_count(photos, tmp_path):
    positions = np.array([[0.1, 0, 0.1], [-0.2, 0.1, 0.3], [0.3, 0.1, 0.1]])
    known = with_points(photos, positions, [(0, 0), (0, 2), (1, 1), (1, 3), (2, 4)])
    priors = PriorsConfig(points=ScenePointsConfig(rays=60, spread=0.01))
    found = source(known, priors, tmp_path).at(0).points
    assert found is not None
    ends = found.rays.origins + found.distance[:, None] * found.rays.directions
    apart = (ends[:, None] - torch.from_numpy(positions).float()).norm(dim=2)
    assert (apart[:, :2].min(1).values < 1e-5).all() and apart[:, 2].min() > 0.1
    # Errors of 1 and 3 pixels, of a mean of 2, in sides of the cube of 1.5 m.
    assert torch.allclose(found.spread.unique(), torch.tensor([0.5, 1.5]) * 0.015)


def test_what_the_photos_do_not_have_is_said(scene, tmp_path):
    bare = open_photos(scene, split="train")
    for priors, words in (
        (PriorsConfig(ranking=DepthRankingConfig()), "depth maps"),
        (PriorsConfig(points=ScenePointsConfig()), "scene points"),
    ):
        with pytest.raises(ValueError, match=words):
            source(bare, priors, tmp_path)


def test_depth_is_found_by_its_pixel(photos, tmp_path):
    loader = RayLoader(photos, 8, cache_dir=tmp_path)
    depth = photos.depth(2)
    assert depth is not None
    y, x = np.nonzero(np.isfinite(depth))
    found = loader.depth_at(np.full(len(x), 2), np.stack([x, y], 1))
    assert (found == depth[y, x]).all()
    outside = np.array([[-1, 0], [0, 40], [40, 3]])
    assert np.isnan(loader.depth_at(np.zeros(3, np.int64), outside)).all()
