"""A training process that is killed while it writes a checkpoint loses nothing that was written before."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.engine.progress import read_metrics
from tests.recipes.small_run import TINY

# Runs the command line; SIGKILL, which nothing can catch, at a moment of writing the checkpoint of step 4.
PROGRAM = """
import os, pathlib, signal, sys
from sparse3d import cli
from sparse3d.engine import checkpoint

moment, write, replace = sys.argv[1], checkpoint._write_synced, os.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def write_half(path, data):
    if path.parent.name.startswith(".step_00000004.") and path.name == checkpoint.TENSORS:
        path.write_bytes(data[: len(data) // 2])
        die()
    write(path, data)

def replace_or_die(source, target):
    if os.path.basename(target) == "last" and (pathlib.Path(target).parent / "step_00000004").is_dir():
        die()
    replace(source, target)

if moment == "half":
    checkpoint._write_synced = write_half
if moment == "pointer":
    os.replace = replace_or_die
sys.exit(cli.main(sys.argv[2:]))
"""
OPTIONS = ["loader.batch_size=1", "train.steps=6", "train.ema_decay=0.9", "evaluation.every_epochs=1"]
OPTIONS += ["checkpoint.every_steps=2", "checkpoint.keep=9"]


def train(folder, moment, *arguments):
    """The exit code of `sparse3d train tiny.yaml ...` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    call = [sys.executable, "-c", PROGRAM, moment, "train", "tiny.yaml", *OPTIONS, *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def assert_same_checkpoint(one, two, name):
    a, b = (read_checkpoint(CheckpointFolder(run / "checkpoints").find(name)) for run in (one, two))
    assert a.state == b.state
    assert a.tensors.keys() == b.tensors.keys()
    assert {key.split(".")[0] for key in a.tensors} == {"model", "ema", "optimizer", "rng"}
    for key, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[key]), key


def metrics(run):
    """The lines without the speed, the one thing that differs between two runs."""
    return [
        {k: v for k, v in line.items() if k != "samples_per_second"}
        for line in read_metrics(run / "metrics.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_run_killed_twice_within_a_checkpoint_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert train(tmp_path, "never", "--out", "straight") == 0
    kinds = [line["kind"] for line in metrics(straight)]
    assert kinds == ["train"] * 4 + ["evaluation"] + ["train"] * 2 + ["evaluation"]

    assert train(tmp_path, "half", "--out", "killed") == -signal.SIGKILL
    assert list((killed / "checkpoints").glob(".step_00000004.*/tensors.safetensors")), "killed within a file"
    assert CheckpointFolder(killed / "checkpoints").find("last").name == "step_00000002"
    assert_same_checkpoint(straight, killed, "2")
    assert metrics(killed) == metrics(straight)[:5], "also what came after the last checkpoint is there"

    # The folder of step 4 is complete, the pointer to it is not written: `last` is still step 2.
    assert train(tmp_path, "pointer", "--out", "killed", "--resume") == -signal.SIGKILL
    assert CheckpointFolder(killed / "checkpoints").find("last").name == "step_00000002"
    assert not list((killed / "checkpoints").glob(".step_*")), "what the first kill left is gone"
    assert_same_checkpoint(straight, killed, "4")

    assert train(tmp_path, "never", "--out", "killed", "--resume") == 0
    for step in ("2", "4", "6", "last"):
        assert_same_checkpoint(straight, killed, step)
    assert metrics(killed) == metrics(straight)
