"""A sphere of voxels, made by hand, teaches fields of other kinds."""

import json
import shutil

import numba
import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.fields.distillation import DistillationConfig, TaughtPoints, ask, point_losses
from sparse3d.fields.mesh import DEPTH_OF_SIDE, MeshConfig, field_mesh
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.gaussians.cloud import SH0
from sparse3d.recipes.conversion.voxel_files import write_voxel_run
from sparse3d.recipes.radiance import reconstruct as radiance
from sparse3d.recipes.radiance.distill import student_config
from sparse3d.recipes.radiance.lessons import dense_cells
from tests.fields.small_scene import paint
from tests.stop_at import StopAt

RADIUS, SIDE = 0.3, 1.0  # metres

SMALL = {
    "hash": [
        "model.encoding.finest=32",
        "model.encoding.log2_entries=12",
        "model.sampler.resolution=32",
        "model.sampler.steps=96",
        "refine.levels=[{pixels: 256}]",
        "train.steps=180",
    ],
    "voxels": [
        "model.resolution=12",
        "model.unit=0.04",
        "model.sh_degree=0",
        "refine.levels=[{pixels: 256}, {pixels: 256}]",
        "refine.prune_every=20",
        "train.steps=120",
    ],
    "lowrank": [
        "model.resolution=16",
        "model.density_components=4",
        "model.color_components=4",
        "model.sampler.resolution=32",
        "model.sampler.steps=96",
        "refine.levels=[{pixels: 256}, {pixels: 256}]",
        "schedule.begins=[0.0, 0.5]",
        "schedule.factors=[1.0, 0.3]",
        "train.steps=180",
    ],
    "nerf": ["model.width=16", "model.depth=2", "model.encoding.count=4", "refine.levels=[{pixels: 32}]"],
    "volsdf": [
        "model.width=16",
        "refine.levels=[{pixels: 16}]",
        "schedule.begins=[0.0]",
        "schedule.factors=[1.0]",
    ],
}
FEW_POINTS = ["distillation.points=1024", "distillation.cells=32"]


def sphere():
    """A voxel field of a sphere whose surface, at the level of a mesh, has RADIUS."""
    field = VoxelField(
        VoxelFieldConfig(space=SpaceConfig((-SIDE / 2,) * 3, SIDE), resolution=24, unit=1 / 24)
    )
    points = field.lattice.points[:, 1:].float() * field.voxel_size - SIDE / 2
    level = np.log(np.expm1(DEPTH_OF_SIDE / SIDE * field.unit))
    with torch.no_grad():
        raw = level - 6 * (points.norm(dim=1, keepdim=True) - RADIUS) / field.voxel_size
        field.raw_density.copy_(raw.clamp(-9, 12))
        field.harmonics.copy_(torch.logit(paint(points).clamp(0.02, 0.98)) / SH0)
    field.prune()
    return field


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    run = tmp_path_factory.mktemp("distill") / "teacher"
    write_voxel_run(run, sphere())
    return run


def changes(method, *more):
    return [*SMALL[method], *FEW_POINTS, *more]


def taught(teacher, out, method, *more, resume=False, stop_at=None):
    """The student's weights."""
    config = student_config(teacher, method, changes(method, *more))
    radiance.train(config, out, resume, extra_hooks=[StopAt(stop_at)])
    return weights(out)


def weights(run):
    return read_checkpoint(CheckpointFolder(run / "checkpoints").find("last")).part("model")


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def surface_error(run):
    """Metres: the mean distance of the student's surface from the sphere."""
    mesh = field_mesh(radiance.load_field(run).field, MeshConfig(resolution=48))
    return float(np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS).mean())


@pytest.fixture(scope="module")
def students(teacher, tmp_path_factory):
    """Runs by method, made by the command; what it said."""
    made = {}
    for method in ("hash", "lowrank", "voxels"):
        run = tmp_path_factory.mktemp("students") / method
        assert (
            cli.main(["distill", str(teacher), "--method", method, "--out", str(run), *changes(method)]) == 0
        )
        made[method] = run
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least"), [("hash", 25.0), ("lowrank", 25.0), ("voxels", 25.0)])
def test_a_student_looks_like_its_teacher(students, method, least):
    run = students[method]
    found = json.loads((run / "evaluation/teacher/metrics.json").read_text())
    assert found["views"] == 8
    assert found["psnr"]["mean"] > least
    assert surface_error(run) < 0.01


@pytest.mark.slow
def test_a_student_is_an_ordinary_run(students, tmp_path):
    run = students["voxels"]
    assert cli.main(["mesh", str(run), "--out", str(tmp_path / "mesh.ply")]) == 0
    assert (
        cli.main(["render", str(run), "--split", "test", "--size", "16", "--out", str(tmp_path / "p")]) == 0
    )
    assert len(list((tmp_path / "p/color").glob("*.png"))) > 1
    assert radiance.evaluate(run).judgement.mean.image.psnr > 20
    coordinates, resolution = (weights(run)[f"field.{name}"] for name in ("coordinates", "resolution"))
    assert resolution == 24 and len(coordinates) < 0.6 * 24**3, "split once, and empty voxels dropped"


@pytest.mark.parametrize("method", ["hash", "lowrank", "voxels", "nerf", "volsdf"])
def test_every_student_continues_with_the_same_bits(teacher, tmp_path, method):
    # A stop while there are points alone, one when rays have begun, and one where points have ended.
    short = ["train.steps=18", "distillation.decay=0.5", "distillation.points=256"]
    whole = taught(teacher, tmp_path / "whole", method, *short)
    parts = tmp_path / "parts"
    for step in (2, 5, 14):
        stopped = taught(teacher, parts, method, *short, resume=step > 2, stop_at=step)
        assert not same_bits(stopped, whole)
    assert same_bits(taught(teacher, parts, method, *short, resume=True), whole)
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    losses = [line["losses"] for line in lines if "losses" in line]
    assert "color" in losses[-1] and "taught_color" not in losses[-1]


def test_the_number_of_threads_changes_no_bit(teacher, tmp_path):
    numba_threads, torch_threads = numba.get_num_threads(), torch.get_num_threads()
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba has one thread here")
    found = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            torch.set_num_threads(threads)
            found += [
                taught(teacher, tmp_path / f"{m}{threads}", m, "train.steps=24") for m in ("hash", "voxels")
            ]
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)
    assert same_bits(found[0], found[2]) and same_bits(found[1], found[3])


def test_photos_are_not_needed_and_their_cameras_are_used(teacher, tmp_path):
    short = ["train.steps=8", "distillation.rays_from=0"]
    own = taught(teacher, tmp_path / "own", "hash", *short)
    moved = tmp_path / "teacher"
    shutil.copytree(teacher, moved)
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace(str(teacher / "photos"), str(tmp_path / "nowhere")))
    without = taught(moved, tmp_path / "without", "hash", *short)
    assert not same_bits(own, without)
    assert same_bits(taught(teacher, tmp_path / "none", "hash", *short, "distillation.own=0"), without)
    with pytest.raises(ValueError, match="photos are not there"):
        taught(moved, tmp_path / "wrong", "hash", *short, "distillation.own=0.5")


@torch.no_grad()
def test_points_that_agree_cost_nothing():
    field, config = sphere(), DistillationConfig("teacher")
    random = torch.Generator().manual_seed(0)
    places = (torch.rand(500, 3, generator=random) - 0.5) * SIDE
    lessons = ask(field, places, torch.nn.functional.normalize(places, dim=1), 1.0)
    assert all(loss == 0 for loss in point_losses(field, lessons, config).values())
    # Logarithms of densities per half side, clipped; what is beyond an end on both sides is no error.
    solid = lessons.density.amax()
    assert np.log(float(solid) * SIDE / 2) < config.high
    apart = lessons._replace(density=torch.full_like(lessons.density, float(solid)), share=0.5)
    raised = point_losses(field, apart, config)
    ours = (lessons.density * SIDE / 2).clamp(min=1e-6).log()
    wanted = 0.5 * config.density * (ours - np.log(float(solid) * SIDE / 2)).square().mean()
    assert float(raised["taught_density"]) == pytest.approx(float(wanted), rel=1e-4)
    none = torch.zeros_like(lessons.density)
    below = point_losses(field, TaughtPoints(*lessons[:2], none, lessons.color, 1.0), config)
    dense = ours > config.low
    wanted = config.density * (ours - config.low).where(dense, 0.0).square().mean()
    assert float(below["taught_density"]) == pytest.approx(float(wanted), rel=1e-4)
    assert below["taught_color"] == 0


def test_dense_cells_are_the_sphere():
    cells, around = dense_cells(sphere(), DistillationConfig("teacher", cells=32))
    radius = np.linalg.norm((cells + 0.5) / 32 * SIDE - SIDE / 2, axis=1)
    assert radius.max() < RADIUS + 0.1
    assert len(cells) > 32**3 * 4 / 3 * np.pi * RADIUS**3
    assert len(around) > len(cells) and set(map(tuple, cells)) <= set(map(tuple, around))


def test_faults_of_the_input_are_told_in_a_line(teacher, tmp_path, capsys):
    def told(run, *words, out=tmp_path / "run"):
        assert cli.main(["distill", str(run), "--out", str(out), *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and not (tmp_path / "run").exists()
        return lines[0]

    small = ["--method", "hash", *changes("hash")]
    assert "not the folder of a run" in told(tmp_path / "nowhere", *small)
    assert "is the teacher itself" in told(teacher, *small, out=teacher)
    assert "did you mean 'voxels'" in told(teacher, "--method", "voxel")
    assert "no checkpoint '7'" in told(teacher, *small, "distillation.checkpoint='7'")
    assert "rays_from is a part" in told(teacher, *small, "distillation.rays_from=2")
    other = tmp_path / "detector"
    other.mkdir()
    (other / "config.yaml").write_text("task: detection\n")
    assert "is a run of detection" in told(other, *small)
    cloud = tmp_path / "cloud"
    cloud.mkdir()
    (cloud / "config.yaml").write_text("task: splatting\n")
    assert "only fields teach" in told(cloud, *small)
    far = tmp_path / "far"
    shutil.copytree(teacher, far)
    text = (far / "config.yaml").read_text()
    assert "contraction: none" in text
    (far / "config.yaml").write_text(text.replace("contraction: none", "contraction: merf"))
    assert "only fields of a cube" in told(far, *small)
