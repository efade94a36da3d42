"""From any representation to any other: shapes and colours stay, files come back, faults are told."""

import errno
import itertools
import os

import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.commands.convert import KINDS
from sparse3d.errors import DataError
from sparse3d.evaluation.surfaces import score_against_shape
from sparse3d.fields.build import build_field
from sparse3d.fields.hash_field import HashFieldConfig
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.shapes import covariances
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.meshes import read_mesh, write_mesh
from sparse3d.mesh.occupancy import occupancy_of_band, occupancy_to_mesh
from sparse3d.mesh.signed_band import band_from_mesh
from sparse3d.recipes.conversion.files import read_thing, target_kind, write_thing
from sparse3d.recipes.conversion.fitting import fitted_cloud, fitted_field, goals_of
from sparse3d.recipes.conversion.judging import compared, convert_and_judge
from sparse3d.recipes.conversion.kinds import ConversionConfig, Kind, kind_of
from sparse3d.recipes.conversion.radiance_voxels import voxels_of_cloud
from sparse3d.recipes.conversion.steps import STEPS, convert, gaussians_to_surfels, way
from sparse3d.recipes.conversion.views import bounds_of, ring, sight
from sparse3d.recipes.surface_scores import balls_of
from tests.mesh.test_mesh_operations import paint, sphere

pytestmark = pytest.mark.slow  # all of them together

QUICK = ConversionConfig(resolution=32, refine=0, views=6, view_size=48)
RADIUS, VOXEL = 0.5, 1 / 32
REAL = [kind for kind in Kind if kind is not Kind.FIELD]
BALL = balls_of(f"sphere:0,0,0,{RADIUS}")


@pytest.fixture(scope="module")
def things():
    """A ball of 1 m in bright colours, in every representation."""
    mesh = sphere(32, RADIUS)
    return {kind: convert(mesh, kind, QUICK) for kind in REAL}


def off(mesh):
    """Voxels: mean distance from the ball, both ways."""
    return score_against_shape(mesh, BALL.distance, BALL.spread(2000), 0.01, 4000).chamfer / VOXEL


def test_every_kind_leads_to_every_other_by_the_fewest_steps():
    assert set(KINDS) == set(REAL), "words of the command line"
    for source, target in itertools.product(REAL, REAL):
        steps = way(source, target)
        assert (source is target) == (not steps) and len(steps) <= 4
        kinds = [source, *(step.target for step in steps)]
        assert kinds[-1] is target and all(s.source is k for s, k in zip(steps, kinds, strict=False))
    with pytest.raises(ValueError, match="nothing leads from mesh to field"):
        way(Kind.MESH, Kind.FIELD)
    assert len({(step.source, step.target) for step in STEPS}) == len(STEPS)


# Marching cubes of distances: 0.2 h^2 / R = 0.013 voxels, and the ball of triangles is off by 0.02 itself.
# What is fused from flat Gaussians that nothing was fitted to: a voxel. Occupancy: half a voxel at most, 0.19
# on average.
@pytest.mark.parametrize(
    ("kind", "most"),
    [(Kind.BAND, 0.04), (Kind.OCCUPANCY, 0.2), (Kind.VOXELS, 0.04), (Kind.GAUSSIANS, 1), (Kind.SURFELS, 1)],
)
def test_the_ball_stays_where_it_is(things, kind, most):
    mesh = convert(things[kind], Kind.MESH, QUICK)
    assert off(mesh) < most
    if kind not in (Kind.GAUSSIANS, Kind.SURFELS):
        assert mesh.is_closed and mesh.euler_number == 2
    away = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    # A voxel is 1/16 of the radius: colours change by 0.4/16 over one, and are taken from up to two away;
    # those of splats are blended with what is behind.
    least = 0.06 if kind in (Kind.GAUSSIANS, Kind.SURFELS) else 0.03
    assert np.abs(mesh.colors / 255 - paint(away, 0)).mean() < least


@pytest.mark.parametrize("kind", REAL)
def test_pictures_of_each_kind_are_alike(things, kind):
    """Colours are carried over, and nothing is turned, mirrored or moved."""
    mesh, camera = things[Kind.MESH], ring(*bounds_of(things[Kind.MESH]), 6, 48, 0.37)[0]
    wanted, seen = sight(mesh, camera), sight(things[kind], camera)
    error = np.abs(seen.color - wanted.color)
    # Splats are drawn a pixel wide at least: outlines of pictures of 48 pixels are softer.
    assert error.mean() < 0.03 and np.median(error[wanted.opacity == 1]) < 0.03
    assert np.abs(seen.opacity - wanted.opacity).mean() < 0.07
    if kind is not Kind.GAUSSIANS:  # a tenth of whose light, before they are fitted, comes from behind
        solid = (wanted.opacity == 1) & (seen.opacity > 0.9)
        assert np.median(np.abs(seen.depth - wanted.depth)[solid]) < 1.5 * VOXEL


def test_points_and_surfels_have_the_normals_of_the_surface(things):
    points = things[Kind.POINTS]
    away = points.positions / np.linalg.norm(points.positions, axis=1, keepdims=True)
    assert (points.normals * away).sum(1).min() > 0.98
    again = convert(things[Kind.SURFELS], Kind.POINTS, QUICK)
    away = again.positions / np.linalg.norm(again.positions, axis=1, keepdims=True)
    assert np.abs((again.normals * away).sum(1)).min() > 0.98
    few = convert(things[Kind.SURFELS], Kind.POINTS, ConversionConfig(count=50))
    assert len(few) == 50


def test_surfels_lie_in_the_plane_of_the_wider_axes():
    random = torch.Generator().manual_seed(0)
    cloud = GaussianCloud(
        torch.randn(40, 3, generator=random),
        torch.randn(40, 3, generator=random),
        torch.randn(40, 4, generator=random),
        torch.zeros(40),
        torch.zeros(40, 1, 3),
        torch.zeros(40, 0, 3),
    )
    flat = gaussians_to_surfels(cloud, QUICK)
    values, vectors = torch.linalg.eigh(covariances(cloud.scales, cloud.quats))
    flattened = vectors[:, :, 1:] * values[:, None, 1:] @ vectors[:, :, 1:].mT
    torch.testing.assert_close(covariances(flat.scales, flat.quats), flattened, rtol=1e-3, atol=1e-4)
    solid = convert(flat, Kind.GAUSSIANS, QUICK)
    torch.testing.assert_close(solid.scales[:, :2], flat.scales)
    assert not solid.surfels


@pytest.mark.slow
def test_fitting_makes_pictures_more_alike_and_repeats(things):
    mesh = things[Kind.MESH]
    config = ConversionConfig(resolution=24, refine=40, views=8, view_size=48)
    goals = goals_of(mesh, config)
    cloud = things[Kind.GAUSSIANS]
    fitted = fitted_cloud(cloud, goals, 40)
    assert compared(mesh, fitted, QUICK).psnr > compared(mesh, cloud, QUICK).psnr + 2
    again = fitted_cloud(cloud, goals, 40)
    assert all(
        torch.equal(a, b)
        for a, b in zip(fitted.parameters().values(), again.parameters().values(), strict=True)
    )
    field = voxels_of_cloud(fitted, config)
    before = compared(mesh, field, QUICK).psnr
    assert compared(mesh, fitted_field(field, goals, 40), QUICK).psnr > before + 2


def test_another_field_becomes_voxels():
    torch.manual_seed(0)
    field = build_field(HashFieldConfig())
    made = convert(field, Kind.VOXELS, ConversionConfig(resolution=16, refine=0))
    assert kind_of(field) is Kind.FIELD and made.lattice.resolution == 16
    points = made.lattice.points[:, 1:].float() / 16 * made.config.space.side + torch.tensor(
        made.config.space.low
    )
    inside = ((points - points.mean(0)).abs() < 0.7).all(1)
    torch.testing.assert_close(
        made.density(points[inside]), field.density(points[inside]), rtol=0.02, atol=0.02
    )


def test_thin_and_hollow_things_keep_their_shape_as_voxels():
    outer, inner = sphere(24, 1.0), sphere(24, 0.6)
    hollow = Mesh(
        np.concatenate([outer.vertices, inner.vertices]),
        np.concatenate([outer.faces, inner.faces[:, ::-1] + len(outer.vertices)]),
    )
    voxels = occupancy_of_band(band_from_mesh(hollow, 0.05))
    middles = voxels.origin + voxels.voxel_size * (voxels.coordinates[:, 1:] + 0.5)
    radius = np.linalg.norm(middles, axis=1)
    assert radius.min() > 0.55 and radius.max() < 1.03
    assert len(radius) * 0.05**3 == pytest.approx(4 / 3 * np.pi * (1 - 0.6**3), rel=0.03), (
        "none is missing within"
    )
    mesh = occupancy_to_mesh(voxels)
    assert mesh.is_closed and mesh.euler_number == 4
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * (1 - 0.6**3), rel=0.03)


def test_the_report_tells_each_step_and_all(things):
    made, rows = convert_and_judge(things[Kind.OCCUPANCY], Kind.BAND, QUICK)
    assert kind_of(made) is Kind.BAND and [row.target for row in rows] == [Kind.MESH, Kind.BAND, Kind.BAND]
    assert rows[2].source is Kind.OCCUPANCY and rows[2].seconds is None
    assert rows[0].chamfer < 1e-6 and rows[0].psnr > 60, "voxels are drawn as their surface"
    moved = Mesh(
        things[Kind.MESH].vertices + np.float32(0.1), things[Kind.MESH].faces, things[Kind.MESH].colors
    )
    found = compared(things[Kind.MESH], moved, QUICK)
    # Mean of |n . d| for a shift d of 0.173 m.
    assert found.chamfer == pytest.approx(0.0866, rel=0.15) and found.psnr < 20 and found.normals > 0.9


# ---- files and the command -------------------------------------------------------------------------------

FILES = {
    Kind.MESH: ["a.ply", "a.obj", "a.glb", "a.stl"],
    Kind.BAND: ["a.safetensors", "a.npz"],
    Kind.OCCUPANCY: ["a.safetensors", "a.npz"],
    Kind.VOXELS: ["a.safetensors", "a.npz", "run"],
    Kind.GAUSSIANS: ["a.ply", "a.spz", "a.splat", "a.glb", "a.compressed.ply", "a.sog"],
    Kind.SURFELS: ["a.ply"],
    Kind.POINTS: ["a.ply", "a.npy", "a.bin", "a.pcd"],
}
PAIRS = [(kind, name) for kind, names in FILES.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_files_of_every_kind_come_back(things, tmp_path, kind, name):
    thing = things[kind]
    write_thing(tmp_path / name, thing)
    again = read_thing(tmp_path / name)
    assert kind_of(again) is kind and target_kind(tmp_path / name, kind) is kind
    for ours, theirs in zip(bounds_of(thing), bounds_of(again), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.01)
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing temporary is left"
    if kind in (Kind.BAND, Kind.OCCUPANCY, Kind.POINTS) and name.endswith((".npz", ".safetensors", ".ply")):
        for field in vars(thing):
            np.testing.assert_allclose(getattr(thing, field), getattr(again, field), atol=1e-6)
    if kind is Kind.VOXELS:
        for key, value in thing.state_dict().items():
            assert torch.equal(value, again.state_dict()[key])
        camera = ring(*bounds_of(thing), 1, 32)[0]
        np.testing.assert_array_equal(sight(thing, camera).color, sight(again, camera).color)


def test_another_program_reads_points_with_colours(things, tmp_path):
    o3d = pytest.importorskip("open3d")
    points = things[Kind.POINTS]
    for name in ("a.pcd", "a.ply"):
        write_thing(tmp_path / name, points)
        theirs = o3d.io.read_point_cloud(str(tmp_path / name))
        np.testing.assert_allclose(np.asarray(theirs.points), points.positions, atol=1e-6)
        np.testing.assert_allclose(np.asarray(theirs.colors), points.colors / 255, atol=1e-6)


def test_a_run_of_voxels_is_drawn_by_render(things, tmp_path, capsys):
    write_thing(tmp_path / "run", things[Kind.VOXELS])
    assert cli.main(["render", str(tmp_path / "run"), "--size", "24", "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out/color").glob("*.png"))) == 4
    assert cli.main(["mesh", str(tmp_path / "run"), "--out", str(tmp_path / "m.ply")]) == 0
    assert off(read_mesh(tmp_path / "m.ply")) < 0.04
    with pytest.raises(ValueError, match="is there already"):
        write_thing(tmp_path / "run", things[Kind.VOXELS])


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("m.obj", "b.npz", []),
        ("m.obj", "v.npz", ["--to", "occupancy"]),
        ("m.obj", "run", ["--refine", "0"]),
        ("m.obj", "g.spz", ["--refine", "0", "--count", "500"]),
        ("m.obj", "s.ply", ["--to", "surfels", "--refine", "2", "--report"]),
        ("m.obj", "p.npy", []),
        (
            "m.obj",
            "t.glb",
            ["--simplify", "300", "--texture", "64", "--units", "cm", "--up", "y", "--report"],
        ),
        ("b.npz", "b.ply", []),
        ("v.npz", "v.stl", ["--report"]),
        ("g.spz", "g.ply", []),
        ("g.spz", "gm.ply", ["--to", "mesh"]),
        ("g.spz", "gp.ply", ["--to", "points"]),
    ],
)
def test_the_command(tmp_path_factory, capsys, source, target, words):
    folder = tmp_path_factory.getbasetemp() / "commands"
    folder.mkdir(exist_ok=True)
    if not (folder / "m.obj").exists():
        write_mesh(folder / "m.obj", sphere(16, RADIUS))
    if not (folder / source).exists():
        pytest.skip("made by another case")
    quick = ["--resolution", "16", "--views", "4", "--view-size", "32"]
    assert cli.main(["convert", str(folder / source), str(folder / target), *quick, *words]) == 0
    captured = capsys.readouterr()
    assert ("Chamfer" in captured.out) == ("--report" in words)
    thing = read_thing(folder / target)
    low, high = bounds_of(thing)
    scale = 100 if "cm" in words else 1
    assert (np.abs(np.stack([-low, high]) / scale - RADIUS) < 0.2).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m.ply", "m.xyz"], "not known"),
        (["gone.ply", "m.obj"], "no such file"),
        (["m.ply", "m.ply"], "is what is read"),
        (["m.ply", "m.obj", "--to", "points"], "cannot hold points"),
        (["m.ply", "b.npz", "--resolution", "4"], "resolution"),
        (["m.ply", "b.npz", "--voxel-size", "1e-9"], "voxel size"),
        (["m.ply", "m.obj", "--texture", "5"], "texels"),
        (["open.ply", "v.npz", "--to", "occupancy"], "within"),
    ],
)
def test_faults_are_told_in_a_line(tmp_path, capsys, words, said):
    write_mesh(tmp_path / "m.ply", sphere(8))
    write_mesh(tmp_path / "open.ply", Mesh(np.eye(3), np.array([[0, 1, 2]])))
    paths = [str(tmp_path / word) for word in words[:2]]
    assert cli.main(["convert", *paths, *words[2:]]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in PAIRS if n.endswith((".npz", ".safetensors"))])
def test_damaged_files_of_voxels_are_told(things, tmp_path, kind, name):
    path = tmp_path / name
    write_thing(path, things[kind])
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=str(path.name)):
            read_thing(path)
    for _ in range(40):  # headers, whatever stands there
        damaged = bytearray(data)
        for place in rng.integers(min(len(data), 600), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_thing(path)
        except DataError:
            pass


def test_a_full_disk_leaves_no_half_of_a_file(things, tmp_path, monkeypatch):
    names = {Kind.BAND: "a.npz", Kind.VOXELS: "run", Kind.POINTS: "p.ply", Kind.GAUSSIANS: "g.spz"}

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for kind, name in names.items():
        with pytest.raises((OSError, RuntimeError), match="No space"):
            write_thing(tmp_path / name, things[kind])
    assert not list(tmp_path.iterdir())


def test_bad_meshes_are_converted_or_told(tmp_path):
    mesh = sphere(12, RADIUS)
    flat = np.concatenate([mesh.faces, [[0, 0, 1], [0, 1, 1]], mesh.faces[:3], mesh.faces[5:6, ::-1]])
    dirty = Mesh(mesh.vertices, flat, mesh.colors)  # doubled, turned and flat faces
    assert off(convert(convert(dirty, Kind.BAND, QUICK), Kind.MESH, QUICK)) < 0.3
    far = Mesh(mesh.vertices * np.float32(100) + np.float32(1e5), mesh.faces, mesh.colors)
    band = convert(far, Kind.BAND, QUICK)
    assert convert(band, Kind.MESH, QUICK).is_closed
    empty = mesh.select(np.zeros(len(mesh.faces), bool))
    for kind in (Kind.BAND, Kind.POINTS, Kind.GAUSSIANS):
        with pytest.raises(ValueError):
            convert(empty, kind, QUICK)
    with pytest.raises(ValueError, match="finite"):
        Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
