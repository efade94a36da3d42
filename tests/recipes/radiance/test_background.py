"""Photos before a wall of a colour that nobody names."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import minimum_filter

from sparse3d import cli
from sparse3d.data.three_spheres import ThreeSpheresConfig, write_three_spheres
from sparse3d.recipes import tasks
from sparse3d.recipes.pictures import photos_of
from sparse3d.recipes.radiance import reconstruct as radiance
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d.recipes.radiance.model import fresh_background
from sparse3d.recipes.radiance.preset import decide_priors
from sparse3d.recipes.scenes import load_run, scene_of
from tests.recipes.radiance.test_reconstruct import same_bits, weights
from tests.stop_at import StopAt

WALL = np.array([0.2, 0.5, 0.65])
VOXELS = [
    "train.steps=100",
    "model.resolution=12",
    "model.unit=0.033",
    "refine.prune_every=15",
    "refine.levels=[{pixels: 512}, {pixels: 512}]",
    "background=learned",
]
LOW_RANK = [
    "train.steps=6",
    "model.resolution=8",
    "model.sampler.resolution=16",
    "refine.levels=[{pixels: 32}, {pixels: 32}]",
    "schedule.begins=[0.0, 0.5]",
    "schedule.factors=[1.0, 0.5]",
    "background.sh_degree=1",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Opaque ones, and beside each the opacity of what is before the wall."""
    folder = tmp_path_factory.mktemp("wall")
    write_three_spheres(folder, ThreeSpheresConfig(views=16, held_out=3, size=24))
    for path in [*folder.glob("train/*.png"), *folder.glob("test/*.png")]:
        rgba = np.asarray(Image.open(path)).astype(np.float64) / 255
        alpha = rgba[..., 3:]
        wall = rgba[..., :3] * alpha + WALL * (1 - alpha)
        Image.fromarray(np.rint(255 * wall).astype(np.uint8)).save(path)
        np.save(path.with_suffix(".npy"), alpha[..., 0])
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "wall"
    trained(photos, out, "voxels_three_spheres", VOXELS)
    return out


def trained(photos, out, method, changes, resume=False, stop_at=None):
    config = tasks.load(method, [f"data.root={photos}", *changes])
    radiance.train(config, out, resume, extra_hooks=[StopAt(stop_at)])


def test_the_colour_of_the_wall_is_found_and_nothing_stands_before_it(run, photos):
    loaded = load_run(run)
    found = loaded.background(torch.tensor([[0.0, 0.0, 1.0]]))[0].detach().numpy()
    assert np.abs(found - WALL).max() < 0.02
    scene = scene_of(loaded)
    held_out = photos_of(scene, "test")
    shown = scene.draw(held_out.cameras[0], (1.0, 1.0, 1.0))
    alpha = np.load(photos / f"{held_out.names[0].removesuffix('.png')}.npy")
    empty = minimum_filter(alpha == 0, 5)  # a pixel beside a sphere sees a voxel of it
    assert empty.mean() > 0.3
    assert shown.opacity[empty].mean() < 0.02 and np.median(shown.opacity[empty]) < 0.003
    assert np.abs(shown.color[empty] - WALL).max() < 0.03
    assert shown.opacity[alpha == 1].min() > 0.5


def test_pictures_and_scores_are_before_it(run, tmp_path):
    assert radiance.evaluate(run).judgement.mean.image.psnr > 20
    words = ["render", str(run), "--split", "test", "--size", "24", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    picture = np.asarray(Image.open(sorted((tmp_path / "color").glob("*.png"))[0]))
    assert np.abs(picture[0, 0, :3] / 255 - WALL).max() < 0.03


@pytest.mark.parametrize(
    ("method", "changes", "stop_at"), [("voxels_three_spheres", VOXELS, 60), ("lowrank", LOW_RANK, 4)]
)
def test_it_continues_with_the_same_bits(photos, run, tmp_path, method, changes, stop_at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    if changes is VOXELS:
        whole = run
    else:
        trained(photos, whole, method, changes)
    trained(photos, parts, method, changes, stop_at=stop_at)
    trained(photos, parts, method, changes, resume=True)
    assert same_bits(weights(parts), weights(whole))
    assert weights(whole)["background.coefficients"].all(), "of all directions"


def test_what_is_opaque_costs_less_and_less(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    costs = [line["losses"]["opaque"] for line in lines if "losses" in line]
    assert costs[0] > costs[-1] > 0
    assert float(weights(run)["background.weight"]) == pytest.approx(0.01 / 100)


def decided(root, *changes):
    config = tasks.load("voxels_three_spheres", [f"data.root={root}", "data.background=auto", *changes])
    photos = radiance.photos_of_split(config.data, "train")
    assert photos.capture.background is not None, "this format's"
    return decide_priors(config, replace(photos, capture=replace(photos.capture, background=None)))


def test_few_opaque_photos_learn_what_is_behind_unless_somebody_knows_it(photos, tmp_path, caplog):
    few = "data.views=3"
    learned = decided(photos, few)
    assert "background)" in caplog.text
    fresh = fresh_background(learned)
    assert fresh is not None and len(fresh.coefficients) == 16
    known = decided(photos, few, "data.background=white")
    assert known.background == "data" and known.model.tv_density < learned.model.tv_density
    for changes in ([few, "priors=none"], [few, "model.space.contraction=merf"], []):
        assert decided(photos, *changes).background == "data", changes
    write_three_spheres(tmp_path, ThreeSpheresConfig(views=3, held_out=1, size=8))
    assert decided(tmp_path).background == "data", "their opacity tells what is behind"


def test_students_learn_none():
    config = tasks.load("lowrank", ["distillation.source=teacher"])
    assert isinstance(config, RadianceConfig) and fresh_background(config) is None
    with pytest.raises(ValueError, match="no photos whose background"):
        tasks.load("lowrank", ["distillation.source=teacher", "background=learned"])
