"""Two processes with batches of one frame train as one process with batches of two."""

import json
import os
import subprocess
import sys

import pytest
import torch

from sparse3d import cli
from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_head import CenterMaps
from sparse3d.models.center_losses import CenterLossConfig, center_losses
from sparse3d.models.center_targets import center_targets
from tests.recipes.small_run import TINY

# Adam divides by the size of the gradient and so blows up the rounding of a tiny one; SGD does not.
OPTIONS = ["train.steps=3", "optimizer.kind=sgd", "optimizer.lr=0.02", "schedule.kind=constant"]


def torchrun(folder, *arguments, processes=2):
    """`torchrun --nproc-per-node PROCESSES -m sparse3d ...` in a folder, one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    done = subprocess.run(
        [*start, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def lines(run, kind):
    found = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.slow
def test_torchrun_with_two_processes_equals_one_with_the_double_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert cli.main(["train", "tiny.yaml", "--out", "one", "loader.batch_size=2", *OPTIONS]) == 0
    said = torchrun(
        tmp_path, "sparse3d", "train", "tiny.yaml", "--out", "two", "loader.batch_size=1", *OPTIONS
    )
    assert said.count("evaluate with: sparse3d evaluate two") == 1, "one of them talks"

    one, two = lines(tmp_path / "one", "train"), lines(tmp_path / "two", "train")
    assert [line["step"] for line in two] == [1, 2, 3]
    for a, b in zip(one, two, strict=True):
        assert a["losses"].keys() == b["losses"].keys() and len(a["losses"]) == 4
        for name, value in a["losses"].items():
            assert b["losses"][name] == pytest.approx(value, rel=1e-4, abs=1e-4), (a["step"], name)

    a, b = (
        read_checkpoint(CheckpointFolder(tmp_path / run / "checkpoints").find("last")).part("model")
        for run in ("one", "two")
    )
    assert a.keys() == b.keys(), "synchronised batch norms keep the names"
    moved = [n for n, t in a.items() if n.endswith("running_var") and not (t == 1).all()]
    assert moved, "batch statistics were taken"
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert cli.main(["evaluate", "two"]) == 0, "a single process reads it"


@pytest.mark.slow
def test_two_processes_resume(tmp_path, monkeypatch):
    """Through `-m sparse3d.cli`, with batch norms of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    call = ["sparse3d.cli", "train", "tiny.yaml", "--out", "run", "loader.batch_size=1", "train.epochs=2"]
    call += ["train.sync_batchnorm=false", "evaluation.every_epochs=2"]
    torchrun(tmp_path, *call, "train.max_minutes=1e-9")
    assert len(lines(tmp_path / "run", "train")) == 1
    torchrun(tmp_path, *call, "train.max_minutes=null", "--resume")
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [1, 2, 3, 4]


# ---- the losses, without processes -------------------------------------------------------------------------


def losses_of(frames, boxes_of, monkeypatch, world_size):
    """Each rank's losses when `frames` (maps of one frame each) are dealt to `world_size` ranks."""
    from sparse3d.models import center_losses as module

    grid = BevGrid((0.0, 0.0, -3.0, 8.0, 8.0, 1.0), (1.0, 1.0), (8, 8))
    share = len(frames) // world_size
    ranks = []
    for start in range(0, len(frames), share):
        maps = CenterMaps(*(torch.cat(parts) for parts in zip(*frames[start : start + share], strict=True)))
        boxes = [boxes_of[f] for f in range(start, start + share)]
        owner = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
        labels = torch.zeros(len(owner), dtype=torch.int64)
        velocities = torch.cat(boxes)[:, :2].clone()
        velocities[velocities[:, 0] > 5] = float("nan")  # the third object's is not known
        targets = center_targets(torch.cat(boxes), labels, owner, share, (0,), grid, velocities=velocities)
        ranks.append((maps, targets))
    counts = torch.tensor([[float((t.heatmap == 1).sum()), float(len(t.code))] for _, t in ranks]).mean(0)
    moving = torch.tensor([float(t.velocity.isfinite().all(1).sum()) for _, t in ranks]).mean()
    monkeypatch.setattr(module, "all_reduce_mean", lambda value: counts if value.dim() else moving)
    monkeypatch.setattr(module, "world_size", lambda: world_size)
    return [center_losses(maps, targets, grid, CenterLossConfig()) for maps, targets in ranks]


@pytest.mark.parametrize("objects", [(2, 1), (1, 0), (0, 0), (3, 0)])
def test_the_mean_of_the_ranks_losses_is_the_loss_of_all_frames(monkeypatch, objects):
    """Also where there are fewer objects than ranks."""
    generator = torch.Generator().manual_seed(0)
    frames = [
        CenterMaps(*(torch.randn(1, c, 8, 8, generator=generator) for c in (1, 2, 1, 3, 2, 1, 2)))
        for _ in objects
    ]
    boxes = [
        torch.tensor([[1.5 + 2 * i, 2.5, -1, 2, 1, 1.5, 0.3] for i in range(n)]).reshape(-1, 7)
        for n in objects
    ]
    (whole,) = losses_of(frames, boxes, monkeypatch, 1)
    halves = losses_of(frames, boxes, monkeypatch, 2)
    assert len(whole) == 5
    for name, value in whole.items():
        mean = torch.stack([half[name] for half in halves]).mean()
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6)
