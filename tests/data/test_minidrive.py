"""minidrive: one seed is one world, rays meet what geometry says, labels fit what was hit, folders resume."""

import errno
import math
from dataclasses import replace

import numba
import numpy as np
import pytest

from sparse3d.data.minidrive import LidarConfig, MinidriveConfig, simulate, write, write_minidrive
from sparse3d.data.minidrive.config import EgoConfig, SizeConfig, WorldConfig
from sparse3d.data.minidrive.ground import Ground, road_frame, surface_height
from sparse3d.data.minidrive.labels import label_objects
from sparse3d.data.minidrive.primitives import (
    LOSS,
    REFLECTIVITY,
    Collection,
    Kind,
    Material,
    Semantic,
    Shape,
)
from sparse3d.data.minidrive.scan import Motion, Scan, intensity, poses, return_probability, scan
from sparse3d.data.minidrive.shapes import make_car, make_cyclist, make_pedestrian, make_van
from sparse3d.data.minidrive.world import World, overlaps
from sparse3d.data.minidrive.write import in_validation
from sparse3d.errors import ConfigError, DataError

EXACT = LidarConfig(
    beams=24, columns=192, range_noise=0, dropout=0, sensitivity=0, intensity_noise=0, elevations=()
)
SMALL = MinidriveConfig(lidar=LidarConfig(beams=16, columns=128))
STILL = Motion(0.0, 0.0)
FLAT = Ground(
    offset=-1.73,
    slope_x=0.0,
    slope_y=0.0,
    waves=np.zeros((1, 4)),
    steepest=0.0,
    heading=0.0,
    sensor_offset=0.0,
    left=1e3,
    right=1e3,
    cross_at=1e6,
    cross_half=0.0,
    kerb=0.1,
    sidewalk=2.0,
    paved_lots=False,
)
MAKERS = {
    "car": lambda rng: make_car(rng, WorldConfig().car),
    "van": lambda rng: make_van(rng, WorldConfig().van),
    "pedestrian": make_pedestrian,
    "cyclist": make_cyclist,
}


def world_of(*placed, ground=FLAT, names=()):
    """A world of (shape, x, y, z, yaw, owner)."""
    collection = Collection()
    for shape, *pose in placed:
        collection.place(shape, *pose)
    return World(collection.primitives(), ground, np.array(names, dtype=str), np.zeros((len(names), 7)))


def scan_of(world, lidar=EXACT, motion=STILL, seed=0) -> Scan:
    return scan(world, lidar, motion, np.random.default_rng(seed))


def directions_of(lidar):
    azimuth = poses(lidar, STILL)[0][:, None]
    elevation = lidar.elevation_angles()
    up = np.broadcast_to(np.sin(elevation), (lidar.columns, lidar.beams))
    return np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), up], axis=2)


def range_image(result, lidar):
    image = np.full((lidar.columns, lidar.beams), np.inf)
    image[result.column, result.beam] = np.linalg.norm(result.points[:, :3].astype(np.float64), axis=1)
    return image


def plane_ranges(d):
    with np.errstate(divide="ignore"):
        t = np.where(d[..., 2] < 0, -1.73 / d[..., 2], np.inf)
    return np.where(t <= EXACT.max_range, t, np.inf)


def assert_ranges(got, want):
    """Equal to float32's accuracy, apart from rays that graze an edge within rounding."""
    agree = np.isclose(got, want, rtol=1e-5) | (np.isinf(got) & np.isinf(want))
    assert (~agree).sum() <= 2


# ---- the caster against closed formulas


def test_flat_ground_lies_at_the_height_of_the_sensor():
    assert_ranges(range_image(scan_of(world_of()), EXACT), plane_ranges(directions_of(EXACT)))


def test_ball_is_met_where_the_quadratic_says():
    ball = Shape(Semantic.OBJECT)
    ball.ellipsoid((0, 0, 0), (1.5, 1.5, 1.5), Material.WALL)
    d, centre = directions_of(EXACT), np.array([8.0, 2.0, -0.4])
    b = d @ centre
    root = b * b - centre @ centre + 1.5**2
    t = np.where((root > 0) & (b > 0), b - np.sqrt(np.maximum(root, 0)), np.inf)
    got = range_image(scan_of(world_of((ball, *centre, 0.0))), EXACT)
    assert np.isfinite(t).sum() > 30
    assert_ranges(got, np.minimum(t, plane_ranges(d)))


def test_turned_box_is_met_where_the_slabs_say():
    box = Shape(Semantic.OBJECT)
    box.box((-2, -0.8, -1.73), (2, 0.8, 0.3), Material.WALL)
    yaw, centre = 0.7, np.array([7.0, -3.0, 0.0])
    d = directions_of(EXACT)
    turn = np.array([[math.cos(yaw), math.sin(yaw), 0], [-math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    o, e = turn @ -centre, d @ turn.T
    with np.errstate(divide="ignore"):
        one, two = (np.array([-2, -0.8, -1.73]) - o) / e, (np.array([2, 0.8, 0.3]) - o) / e
    enter, leave = np.minimum(one, two).max(axis=2), np.maximum(one, two).min(axis=2)
    t = np.where((enter <= leave) & (enter > 0), enter, np.inf)
    assert np.isfinite(t).sum() > 60
    got = range_image(scan_of(world_of((box, *centre, yaw))), EXACT)
    assert_ranges(got, np.minimum(t, plane_ranges(d)))


def test_upright_column_and_its_lid_are_met_where_the_circle_says():
    column = Shape(Semantic.POLE)
    column.rod((0, 0, -1.73), (0, 0, -0.7), 0.6, Material.WALL)
    d, centre = directions_of(EXACT), np.array([-4.0, 3.0])
    flat = d[..., :2]
    a, b, c = (flat**2).sum(2), flat @ centre, centre @ centre - 0.6**2
    root = b * b - a * c
    side = np.where((root > 0) & (b > 0), (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    with np.errstate(invalid="ignore"):
        side[~(side * d[..., 2] <= -0.7)] = np.inf
    with np.errstate(divide="ignore"):
        lid = np.where(d[..., 2] < 0, -0.7 / d[..., 2], np.inf)
    with np.errstate(invalid="ignore"):
        lid[~(np.linalg.norm(flat * lid[..., None] - centre, axis=2) <= 0.6)] = np.inf
    assert np.isfinite(side).sum() > 10 and np.isfinite(lid).sum() > 3
    got = range_image(scan_of(world_of((column, *centre, 0.0, 0.0))), EXACT)
    assert_ranges(got, np.minimum(np.minimum(side, lid), plane_ranges(d)))


def test_tilted_rod_points_lie_on_its_mantle():
    start, end, radius = np.array([5.0, -1.0, -1.0]), np.array([6.0, 1.5, 0.2]), 0.3
    rod = Shape(Semantic.POLE)
    rod.rod(start, end, radius, Material.METAL)
    result = scan_of(world_of((rod, 0, 0, 0, 0)))
    p = result.points[result.semantic == Semantic.POLE, :3].astype(np.float64) - start
    axis = (end - start) / np.linalg.norm(end - start)
    along = p @ axis
    away = np.linalg.norm(p - along[:, None] * axis, axis=1)
    length = np.linalg.norm(end - start)
    on_mantle = np.abs(away - radius) < 1e-5
    on_lid = (away < radius) & (np.minimum(np.abs(along), np.abs(along - length)) < 1e-5)
    assert on_mantle.sum() > 20 and (on_mantle | on_lid).all()
    assert (along > -1e-5).all() and (along < length + 1e-5).all()


def test_every_plane_of_a_frustum_holds_four_corners_and_the_others_lie_inside():
    shape = Shape(Semantic.CAR)
    shape.frustum((-2, 1.5, -0.9, 0.8), (-1, 1, -0.5, 0.6), (0.4, 1.3), Material.PAINT)
    planes, corners = np.array(shape.planes[0]), np.array(shape.corners[0])
    gaps = planes[:, 3:] - planes[:, :3] @ corners.T
    assert np.allclose(np.linalg.norm(planes[:, :3], axis=1), 1)
    assert (gaps > -1e-12).all()
    assert ((np.abs(gaps) < 1e-12).sum(axis=1) == 4).all()


def test_waving_ground_points_lie_on_the_surface():
    waves = np.array([[0.15, 0.05, 0.3, 0.2], [-0.05, 0.2, 1.0, 0.1]])
    offset = -1.73 - float((waves[:, 3] * np.sin(waves[:, 2])).sum())
    steepest = float(0.015 + (np.hypot(waves[:, 0], waves[:, 1]) * waves[:, 3]).sum())
    ground = FLAT._replace(offset=offset, slope_x=0.012, slope_y=-0.009, waves=waves, steepest=steepest)
    result = scan_of(world_of(ground=ground))
    heights = [surface_height(ground, x, y) for x, y in result.points[:, :2].astype(np.float64)]
    assert len(heights) > 1000
    # Sphere tracing ends at a gap of 1e-4 m.
    assert np.abs(result.points[:, 2] - heights).max() < 2e-4


def test_kerb_has_a_face_between_its_two_levels():
    ground = FLAT._replace(left=3.0, right=3.0, heading=0.3, sensor_offset=-1.2, sidewalk=2.0)
    result = scan_of(world_of(ground=ground))
    d = np.array([road_frame(ground, x, y)[1] for x, y in result.points[:, :2].astype(np.float64)])
    z = result.points[:, 2]
    road, walk = result.semantic == Semantic.ROAD, result.semantic == Semantic.SIDEWALK
    assert (np.abs(d[road]) < 3 + 1e-4).all() and np.allclose(z[road], -1.73, atol=1e-5)
    face = walk & (z < -1.63 - 1e-4)
    assert face.sum() > 10 and np.allclose(np.abs(d[face]), 3.0, atol=1e-4)
    assert (z[face] > -1.73 - 1e-5).all()
    assert (np.abs(d[walk]) < 5 + 1e-4).all() and (walk & ~face).sum() > 30


def test_kerbs_of_street_and_side_street_shine_by_their_own_slant():
    ground = FLAT._replace(left=3.0, right=3.0, heading=0.3, cross_at=9.0, cross_half=4.0, sidewalk=30.0)
    result = scan_of(world_of(ground=ground), replace(EXACT, columns=720, beams=48))
    xyz = result.points[:, :3].astype(np.float64)
    face = (result.semantic == Semantic.SIDEWALK) & (xyz[:, 2] < -1.63 - 1e-3)
    s, d = np.array([road_frame(ground, x, y) for x, y in xyz[face, :2]]).T
    street = np.abs(np.abs(d) - 3.0) < 1e-3
    assert street.sum() > 20 and (~street).sum() > 20
    assert np.allclose(np.abs(s[~street] - 9.0), 4.0, atol=1e-3)
    r = np.linalg.norm(xyz[face], axis=1)
    # The sensor stands at the road frame's origin, so (s, d) is also the ray's direction.
    cosine = np.abs(np.where(street, d, s)) / r
    want = REFLECTIVITY[Material.CONCRETE] * np.sqrt(cosine) / (1 + (r / 60) ** 2)
    assert np.abs(result.points[face, 3] - want).max() < 0.005 + 1e-4


def test_medium_lets_through_the_exponential_of_its_depth():
    hedge = Shape(Semantic.VEGETATION)
    hedge.box((10, -40, -10), (10.5, 40, 10), Material.LEAF, density=2.0)
    lidar = replace(EXACT, columns=512, beams=40, elevations=tuple(np.linspace(2, -5, 40)))
    result = scan_of(world_of((hedge, 0, 0, 0, 0)), lidar)
    d = directions_of(lidar)
    facing = (np.abs(d[:, 0, 1]) < 0.5) & (d[:, 0, 0] > 0)
    path = 0.5 / d[facing][..., 0]
    leaves = result.semantic == Semantic.VEGETATION
    met = np.bincount(result.column[leaves], minlength=512)[facing].sum()
    expected = 1 - np.exp(-2.0 * path)
    # The material loses 2 % on top; four standard deviations of the count.
    want, spread = expected.sum() * (1 - LOSS[Material.LEAF]), 4 * math.sqrt(expected.size * 0.25)
    assert abs(met - want) < spread
    # Leaves face anywhere: cosines are uniform in [0.3, 1], whose square root has deviation 0.123.
    r = np.linalg.norm(result.points[leaves, :3], axis=1)
    shine = result.points[leaves, 3] * (1 + (r / 60) ** 2) / REFLECTIVITY[Material.LEAF]
    assert abs(shine.std() - 0.123) < 0.02
    depth = result.points[leaves, 0]
    assert depth.min() >= 10 - 1e-5 and depth.max() <= 10.5 + 1e-5


# ---- the sensor


def wall_world(distance=20.0):
    wall = Shape(Semantic.BUILDING)
    wall.box((distance, -300, -50), (distance + 1, 300, 50), Material.WALL)
    return world_of((wall, 0, 0, 0, 0))


FAN = LidarConfig(beams=30, columns=800, elevations=tuple(np.linspace(2, -4, 30)), sensitivity=0)


def test_range_noise_has_the_deviation_of_the_config():
    lidar = replace(FAN, range_noise=0.05, dropout=0.0)
    noisy, clean = scan_of(wall_world(), lidar), scan_of(wall_world(), replace(lidar, range_noise=0.0))
    error = np.linalg.norm(noisy.points[:, :3], axis=1) - np.linalg.norm(clean.points[:, :3], axis=1)
    assert len(error) > 5000
    # Standard error of a deviation from n samples is 1 / sqrt(2 n) = 1 %.
    assert abs(error.mean()) < 0.003 and abs(error.std() / 0.05 - 1) < 0.04


def test_dropout_loses_its_share():
    full, half = (scan_of(wall_world(), replace(FAN, dropout=p)) for p in (0.0, 0.4))
    n = len(full.points)
    assert abs(len(half.points) / n - 0.6) < 4 * math.sqrt(0.24 / n)


def test_glass_swallows_its_share_of_the_rays():
    panes = []
    for material in (Material.WALL, Material.GLASS):
        pane = Shape(Semantic.BUILDING)
        pane.box((20, -300, -50), (21, 300, 50), material)
        panes.append(scan_of(world_of((pane, 0, 0, 0, 0)), replace(FAN, dropout=0.0)))
    n, through = ((pane.semantic == Semantic.BUILDING).sum() for pane in panes)
    assert abs(through / n - (1 - LOSS[Material.GLASS])) < 4 * math.sqrt(0.25 / n)


def test_return_probability_falls_with_range_and_slant_and_darkness():
    lidar = LidarConfig(dropout=0.1, sensitivity=0.05)
    near, far = return_probability(lidar, np.array(0.5), np.array(1.0), np.array([10.0, 80.0]))
    assert near == pytest.approx(0.9) and far == pytest.approx(0.9 * (1 - math.exp(-10)))
    p = return_probability(lidar, np.array([0.5, 0.05, 0.5]), np.array([0.05, 1, 1]), np.full(3, 70.0))
    assert p[0] < p[2] and p[1] < p[2]


def test_returns_thin_out_with_distance_as_the_probability_says():
    lidar = replace(FAN, dropout=0.0, sensitivity=1.0, range_noise=0.0)
    for distance in (30.0, 60.0):
        every = scan_of(wall_world(distance), replace(lidar, sensitivity=0))
        r = np.linalg.norm(every.points[every.semantic == Semantic.BUILDING, :3], axis=1)
        p = return_probability(lidar, np.array(REFLECTIVITY[Material.WALL]), distance / r, r)
        got = (scan_of(wall_world(distance), lidar).semantic == Semantic.BUILDING).sum()
        assert len(p) > 1000 and p.mean() < 0.9
        assert abs(got - p.sum()) < 4 * math.sqrt((p * (1 - p)).sum())


def test_intensity_follows_reflectivity_slant_and_range():
    assert intensity(np.array(0.5), np.array(1.0), np.array(0.0)) == pytest.approx(0.5)
    assert intensity(np.array(0.5), np.array(0.25), np.array(60.0)) == pytest.approx(0.125)
    result = scan_of(wall_world(), replace(EXACT, max_range=200.0))
    wall = result.semantic == Semantic.BUILDING
    r = np.linalg.norm(result.points[wall, :3], axis=1)
    want = REFLECTIVITY[Material.WALL] * np.sqrt(20.0 / r) / (1 + (r / 60) ** 2)
    assert np.abs(result.points[wall, 3] - want).max() < 0.005 + 1e-6  # steps of a hundredth


def test_compensated_points_lie_where_the_world_is_and_raw_ones_where_the_sensor_saw_them():
    motion = Motion(speed=20.0, turn_rate=0.5)
    lidar = replace(EXACT, columns=256, max_range=300.0)
    still, moved = (scan_of(wall_world(), replace(lidar, compensate=c), motion) for c in (True, False))
    wall = still.semantic == Semantic.BUILDING
    assert np.allclose(still.points[wall, 0], 20.0, atol=1e-4)
    azimuth, position, yaw = poses(lidar, motion)
    back = yaw[moved.column]
    rotation = np.array([[np.cos(back), np.sin(back)], [-np.sin(back), np.cos(back)]]).transpose(2, 0, 1)
    expected = np.einsum("nij,nj->ni", rotation, still.points[:, :2] - position[still.column, :2])
    assert np.allclose(moved.points[:, :2], expected, atol=1e-4)
    # A raw point keeps the azimuth at which it was fired.
    fired = azimuth[moved.column]
    assert np.allclose(np.arctan2(moved.points[:, 1], moved.points[:, 0]), fired, atol=1e-5)


def test_sensor_moves_along_an_arc():
    lidar = LidarConfig(columns=1000)
    _, position, yaw = poses(lidar, Motion(10.0, 0.4))
    steps = np.linalg.norm(np.diff(position, axis=0), axis=1)
    assert np.allclose(steps, 10.0 * 0.1 / 1000, rtol=1e-6)
    heading = np.arctan2(*np.diff(position, axis=0).T[1::-1])
    assert np.allclose(heading, (yaw[1:] + yaw[:-1]) / 2, atol=1e-9)


# ---- what is labelled


@pytest.mark.parametrize("maker", MAKERS)
def test_box_is_tight_around_the_shape(maker):
    # Surface samples of each solid, without the support functions that made the box.
    u = np.random.default_rng(0).normal(size=(4000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    turn = np.linspace(0, 2 * np.pi, 400)
    rims = [np.column_stack([np.cos(turn), np.sin(turn), np.full(400, end)]) for end in (-1, 1)]
    unit = {Kind.ELLIPSOID: u, Kind.CYLINDER: np.concatenate(rims)}
    for seed in range(10):
        actor = MAKERS[maker](np.random.default_rng(seed))
        shape = actor.shape
        samples = [
            np.array(shape.corners[i])
            if kind is Kind.CONVEX
            else unit[kind] @ shape.affine[i][:, :3].T + shape.affine[i][:, 3]
            for i, kind in enumerate(shape.kinds)
        ]
        points = np.concatenate(samples)
        lower, upper = actor.centre - actor.size / 2, actor.centre + actor.size / 2
        assert (points >= lower - 1e-9).all() and (points <= upper + 1e-9).all()
        # 4000 samples of a ball come within a centimetre of its poles.
        assert np.allclose(points.min(axis=0), lower, atol=0.01)
        assert np.allclose(points.max(axis=0), upper, atol=0.01)
        assert abs(lower[2]) < 0.02  # it stands on the ground


def test_sizes_follow_their_distributions():
    rng = np.random.default_rng(0)
    cars = np.array([MAKERS["car"](rng).size for _ in range(300)])
    assert np.abs(cars.mean(axis=0) - [3.9, 1.63, 1.53]).max() < 0.08
    assert np.abs(cars.std(axis=0) - [0.41, 0.10, 0.13]).max() < 0.05
    people = np.array([make_pedestrian(rng).size for _ in range(300)])
    assert np.abs(people.mean(axis=0) - [0.84, 0.66, 1.76]).max() < 0.12
    riders = np.array([make_cyclist(rng).size for _ in range(300)])
    assert np.abs(riders.mean(axis=0) - [1.76, 0.60, 1.74]).max() < 0.08


def clean(beams=48, columns=512):
    return MinidriveConfig(lidar=replace(EXACT, beams=beams, columns=columns), ego=EgoConfig(max_speed=14.0))


def in_box(points, box, margin):
    p = points[:, :3].astype(np.float64) - box[:3]
    cos, sin = math.cos(box[6]), math.sin(box[6])
    local = np.column_stack([cos * p[:, 0] + sin * p[:, 1], -sin * p[:, 0] + cos * p[:, 1], p[:, 2]])
    return (np.abs(local) <= np.asarray(box[3:6], dtype=np.float64) / 2 + margin).all(axis=1)


@pytest.mark.parametrize("index", range(4))
def test_boxes_contain_their_own_points_and_no_others(index):
    scene = simulate(11, index, clean())
    ground = np.isin(scene.semantic, [Semantic.ROAD, Semantic.SIDEWALK, Semantic.TERRAIN])
    assert scene.hits.sum() > 100
    for m, box in enumerate(scene.boxes):
        own = scene.instance == m + 1
        assert own.sum() == scene.hits[m]
        # Boxes and points are float32: a tenth of a millimetre at 60 m.
        assert in_box(scene.points[own], box, 1e-4).all()
        assert not in_box(scene.points[~own & ~ground], box, -1e-4).any()


def test_boxes_on_the_ground_do_not_overlap():
    for index in range(4):
        boxes = simulate(3, index, SMALL).boxes.astype(np.float64)
        rectangles = np.column_stack(
            [boxes[:, 0], boxes[:, 1], boxes[:, 3] / 2, boxes[:, 4] / 2, boxes[:, 6]]
        )
        for m in range(len(rectangles)):
            assert not overlaps(rectangles[:m], m, *rectangles[m])


def test_rectangles_overlap_only_when_they_share_area():
    square = np.array([[0.0, 0.0, 1.0, 1.0, 0.0]])
    assert overlaps(square, 1, 1.9, 0.0, 1.0, 1.0, 0.0)
    assert not overlaps(square, 1, 2.1, 0.0, 1.0, 1.0, 0.0)
    # Turned by 45 degrees the corner reaches sqrt(2).
    assert overlaps(square, 1, 2.3, 0.0, 1.0, 1.0, math.pi / 4)
    assert not overlaps(square, 1, 2.5, 0.0, 1.0, 1.0, math.pi / 4)
    # Both axis-aligned bounding boxes overlap, the rectangles do not.
    assert not overlaps(square, 1, 1.9, 1.9, 1.0, 1.0, math.pi / 4)


def test_hidden_share_counts_the_rays_that_something_else_takes():
    car = make_car(np.random.default_rng(0), SizeConfig((3.9, 1.63, 1.53), (0, 0, 0)))
    wall = Shape(Semantic.FENCE)
    wall.box((6, 0, -2), (6.1, 10, 3), Material.WALL)
    lidar = replace(EXACT, beams=64, columns=1024)
    there = (car.shape, 12.0, 0.0, -1.73, math.pi / 2, 1)
    free = scan_of(world_of(there, names=["Car"]), lidar)
    half = scan_of(world_of(there, (wall, 0, 0, 0, 0), names=["Car"]), lidar)
    assert free.visible[0] == 1.0
    # Whatever is built first: rays that the wall blocks still count as the car's own.
    for order in ([(wall, 0, 0, 0, 0), there], [there, (wall, 0, 0, 0, 0)]):
        assert scan_of(world_of(*order, names=["Car"]), lidar).visible[0] == half.visible[0]
    # The wall hides y > 0, half of a car that stands across.
    assert 0.35 < half.visible[0] < 0.65
    assert half.hits[0] < 0.7 * free.hits[0]
    assert (half.points[half.instance == 1, 1] < 0.1).all()


# ---- folders


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_written_labels_match_the_boxes_through_the_calibration(tmp_path):
    write_minidrive(tmp_path, 5, 5, SMALL)
    checked = 0
    for index in range(5):
        scene = simulate(5, index, SMALL)
        training, name = tmp_path / "training", f"{index:06d}"
        lines = (training / "calib" / f"{name}.txt").read_text().splitlines()
        matrices = {line.split(":")[0]: np.array(line.split()[1:], dtype=float) for line in lines}
        assert list(matrices) == ["P0", "P1", "P2", "P3", "R0_rect", "Tr_velo_to_cam", "Tr_imu_to_velo"]
        to_camera = matrices["R0_rect"].reshape(3, 3) @ matrices["Tr_velo_to_cam"].reshape(3, 4)
        p2 = matrices["P2"].reshape(3, 4)
        points = np.fromfile(training / "velodyne" / f"{name}.bin", "<f4").reshape(-1, 4)
        assert np.array_equal(points, scene.points)
        rows = [row.split() for row in (training / "label_2" / f"{name}.txt").read_text().splitlines()]
        objects, source = label_objects(scene, SMALL.labels)
        assert len(rows) == len(objects) and all(len(row) == 15 for row in rows)
        for row, m in zip(rows, source, strict=True):
            truncated, occluded, alpha, left, top, right, bottom, h, w, l, x, y, z, angle = map(
                float, row[1:]
            )
            assert 0 <= left < right <= 1241 and 0 <= top < bottom <= 374
            if row[0] == "DontCare":
                assert scene.hits[m] < 5 and (h, x, angle) == (-1, -1000, -10)
                continue
            box = scene.boxes[m]
            assert row[0] == scene.names[m] and scene.hits[m] >= 5
            assert np.allclose([l, w, h], box[3:6], atol=0.01)
            foot = to_camera[:, :3] @ (box[:3] - [0, 0, box[5] / 2]) + to_camera[:, 3]
            assert np.allclose([x, y, z], foot, atol=0.01)
            front = to_camera[:, :3] @ [math.cos(box[6]), math.sin(box[6]), 0]
            assert np.allclose([math.cos(angle), -math.sin(angle)], [front[0], front[2]], atol=0.01)
            assert abs(math.remainder(angle - math.atan2(x, z) - alpha, 2 * math.pi)) < 0.01
            assert 0 <= truncated <= 1 and int(occluded) in (0, 1, 2, 3)
            # Its own points project into its picture (5 cm of noise at 5 m are 7 pixels).
            own = scene.points[scene.instance == m + 1, :3] @ to_camera[:, :3].T + to_camera[:, 3]
            pixels = own @ p2[:, :3].T + p2[:, 3]
            pixels = pixels[:, :2] / pixels[:, 2:]
            inside = (pixels > [left - 8, top - 8]) & (pixels < [right + 8, bottom + 8])
            assert truncated > 0 or inside.all()
            checked += 1
    assert checked > 12


def test_occlusion_level_counts_the_shares_that_are_not_reached():
    scene = simulate(5, 0, SMALL)
    front = int(np.argmax(np.where(scene.boxes[:, 0] > np.abs(scene.boxes[:, 1]) + 5, scene.hits, -1)))
    levels = []
    for share in (1.0, 0.75, 0.5, 0.2, 0.05):
        visible = scene.visible.copy()
        visible[front] = share
        objects, source = label_objects(replace(scene, visible=visible), SMALL.labels)
        levels.append(int(objects.occluded[source == front][0]))
    assert levels == [0, 0, 1, 2, 3]


def test_scene_is_the_same_for_any_number_of_threads():
    available = numba.get_num_threads()
    first = simulate(2, 7, SMALL)
    try:
        for threads in {1, available}:
            numba.set_num_threads(threads)
            again = simulate(2, 7, SMALL)
            for name in ("points", "semantic", "instance", "boxes", "hits", "visible"):
                assert getattr(again, name).tobytes() == getattr(first, name).tobytes()
    finally:
        numba.set_num_threads(available)


def test_scene_does_not_depend_on_its_neighbours_but_on_its_seed(tmp_path):
    write_minidrive(tmp_path / "many", 3, 4, SMALL)
    write_minidrive(tmp_path / "one", 1, 4, SMALL, first=2)
    many, one = tree(tmp_path / "many"), tree(tmp_path / "one")
    assert {k for k in one if "ImageSets" not in k} < set(many)
    for name in (k for k in one if "ImageSets" not in k):
        assert one[name] == many[name]
    a, b, c = (simulate(seed, index, SMALL).points for seed, index in ((4, 0), (4, 1), (5, 0)))
    assert not np.array_equal(a[:500], b[:500]) and not np.array_equal(a[:500], c[:500])


def test_another_sensor_sees_the_same_street():
    other = replace(SMALL, lidar=LidarConfig(beams=8, columns=64))
    assert np.array_equal(simulate(1, 0, SMALL).boxes, simulate(1, 0, other).boxes)


def test_interrupted_folder_becomes_the_whole_one(tmp_path):
    write_minidrive(tmp_path / "whole", 4, 9, SMALL, labels=True)

    def stop(done, scenes):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_minidrive(tmp_path / "parts", 4, 9, SMALL, labels=True, progress=stop)
    assert not (tmp_path / "parts" / "ImageSets").exists()
    # A kill between two files of a scene leaves the label, which is written last, absent.
    (tmp_path / "parts" / "training" / "label_2" / "000001.txt").unlink()
    (tmp_path / "parts" / "training" / "velodyne" / "000001.bin").write_bytes(b"half")
    (tmp_path / "parts" / "training" / "velodyne" / ".000001.bin.x7.tmp").write_bytes(b"quarter")
    seen = []
    write_minidrive(
        tmp_path / "parts", 4, 9, SMALL, labels=True, progress=lambda done, n: seen.append((done, n))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_folder_grows_and_keeps_its_split(tmp_path):
    write_minidrive(tmp_path / "once", 5, 9, SMALL, val_fraction=0.4)
    write_minidrive(tmp_path / "grown", 3, 9, SMALL, val_fraction=0.4)
    write_minidrive(tmp_path / "grown", 5, 9, SMALL, val_fraction=0.4)
    assert tree(tmp_path / "grown") == tree(tmp_path / "once")
    train, val, both = (
        (tmp_path / "once" / "ImageSets" / f"{n}.txt").read_text().split()
        for n in ("train", "val", "trainval")
    )
    assert sorted(train + val) == both == [f"{k:06d}" for k in range(5)] and len(val) == 2


@pytest.mark.parametrize(
    ("fraction", "scenes", "count"), [(0, 50, 0), (1, 50, 50), (0.2, 500, 100), (0.29, 100, 29)]
)
def test_validation_scenes_are_their_share(fraction, scenes, count):
    assert sum(in_validation(k, fraction) for k in range(scenes)) == count


def test_point_labels_are_class_and_instance(tmp_path):
    write_minidrive(tmp_path, 1, 6, SMALL, labels=True)
    words = np.fromfile(tmp_path / "training" / "labels" / "000000.label", "<u4")
    scene = simulate(6, 0, SMALL)
    assert np.array_equal(words & 0xFFFF, scene.semantic) and np.array_equal(words >> 16, scene.instance)
    assert set(np.unique(scene.semantic)) <= {int(s) for s in Semantic}


def test_folder_of_something_else_is_refused(tmp_path):
    write_minidrive(tmp_path / "a", 1, 6, SMALL)
    before = tree(tmp_path / "a")
    with pytest.raises(DataError, match="scenes of another seed; choose a new folder"):
        write_minidrive(tmp_path / "a", 1, 7, SMALL)
    with pytest.raises(DataError, match="another config"):
        write_minidrive(tmp_path / "a", 1, 6)
    assert tree(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        write_minidrive(tmp_path / "b", 1, 6, SMALL)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "minidrive.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        write_minidrive(tmp_path / "c", 1, 6, SMALL)


def test_full_disk_says_so_and_the_same_call_continues(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write, "write_bytes", full)
        with pytest.raises(DataError, match="disk is full; make room and give the same command again"):
            write_minidrive(tmp_path / "a", 1, 6, SMALL)
    write_minidrive(tmp_path / "a", 1, 6, SMALL)
    write_minidrive(tmp_path / "b", 1, 6, SMALL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="3 elevations for 64 beams"):
        LidarConfig(elevations=(1.0, 2.0, 3.0))
    with pytest.raises(ConfigError, match="dropout"):
        LidarConfig(dropout=1.5)
    with pytest.raises(ValueError, match="seed and index"):
        simulate(-1, 0)
    with pytest.raises(ValueError, match="val_fraction"):
        write_minidrive("unused", 1, 0, val_fraction=2.0)


def test_street_is_worth_learning_from():
    """Every class stands in view of the camera, some objects are hidden, and the ground takes most points."""
    names, hidden, ground = [], 0, []
    for index in range(12):
        scene = simulate(0, index, MinidriveConfig(lidar=LidarConfig(beams=64, columns=512)))
        objects, _ = label_objects(scene, MinidriveConfig().labels)
        names += objects.names.tolist()
        hidden += int((objects.occluded >= 1).sum())
        ground.append(np.isin(scene.semantic, [Semantic.ROAD, Semantic.SIDEWALK, Semantic.TERRAIN]).mean())
    per_scene = {name: names.count(name) / 12 for name in ("Car", "Pedestrian", "Cyclist")}
    assert 3 < per_scene["Car"] < 12 and 1.5 < per_scene["Pedestrian"] < 9 and 1 < per_scene["Cyclist"] < 6
    assert hidden > 12
    assert 0.3 < np.mean(ground) < 0.75
