"""torchrun starts a run again that lost a process, and the run ends as if nothing had happened."""

import os
import signal
import subprocess
import sys

import pytest

from sparse3d.engine.progress import read_metrics
from tests.recipes.small_run import TINY
from tests.recipes.test_killed_run import assert_same_checkpoint, metrics

# The command line; the second process kills itself, in each of its lives in the step that the test names.
PROGRAM = """
import os, signal, sys
from sparse3d import cli
from sparse3d.engine.loop import Trainer

fatal, former = dict(enumerate(os.environ["FATAL_STEPS"].split())), Trainer._step

def step(trainer, batches):
    restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if os.environ["RANK"] == "1" and str(trainer.step) == fatal.get(restarts):
        os.kill(os.getpid(), signal.SIGKILL)
    former(trainer, batches)

Trainer._step = step
sys.exit(cli.main(sys.argv[1:]))
"""
OPTIONS = ["loader.batch_size=1", "train.epochs=4", "train.ema_decay=0.9", "evaluation.every_epochs=2"]
OPTIONS += ["checkpoint.every_steps=1", "checkpoint.every_epochs=2", "checkpoint.keep=9"]


def train(folder, out, fatal_steps):
    """What `torchrun --max-restarts 2` with two processes says; each step of the epoch is one of two."""
    (folder / "program.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "FATAL_STEPS": fatal_steps,
    }
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    start += ["--max-restarts", "2", "program.py", "train", "tiny.yaml", "--out", out, *OPTIONS]
    done = subprocess.run(start, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_run_that_lost_a_worker_ends_bit_for_bit_as_one_that_did_not(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    train(tmp_path, "straight", "")
    # Killed before the first checkpoint, and once more between two of them.
    said = train(tmp_path, "killed", "0 5")
    assert said.count("exitcode: -9") == 2, said
    assert_same_checkpoint(tmp_path / "straight", tmp_path / "killed", "last")
    assert_same_checkpoint(tmp_path / "straight", tmp_path / "killed", "best")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")
    steps = [
        line["step"] for line in read_metrics(tmp_path / "straight/metrics.jsonl") if line["kind"] == "train"
    ]
    assert steps == list(range(1, 9))
