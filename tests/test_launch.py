"""The launch files give commands that torchrun and sparse3d understand, and hand on what they are given."""

import os
import subprocess

import pytest
from torch.distributed.run import get_args_parser

from sparse3d import cli
from tests.conftest import REPOSITORY

GIVEN = ["centerpoint_kitti", "--out", "runs/a b", "train.epochs=3"]
TOOLS = {
    "torchrun": 'printf "%s\\n" "$@"',
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": "echo node7; echo node8",
}


@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
@pytest.mark.parametrize(
    ("file", "variables", "nodes", "endpoint"),
    [
        ("one_node.sh", {}, "1:1", ""),
        ("two_nodes.sh", {"HEAD": "node0:29500", "NODES": "2", "GPUS": "4"}, "2", "node0:29500"),
        (
            "slurm.sbatch",
            {"SLURM_NNODES": "2", "SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n"},
            "2",
            "node7:29500",
        ),
    ],
)
def test_a_launch_file_gives_a_command_that_is_understood(tmp_path, file, variables, nodes, endpoint):
    for name, body in TOOLS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    shell = ["bash" if file.endswith("sbatch") else "sh", REPOSITORY / "configs/launch" / file]
    environment = {**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([*shell, *GIVEN], env=environment, capture_output=True, text=True, check=True)
    start = get_args_parser().parse_args(done.stdout.splitlines())
    assert start.module and start.training_script == "sparse3d" and start.max_restarts == 3
    assert (start.nnodes, start.rdzv_endpoint) == (nodes, endpoint)
    train = cli._parse(start.training_script_args)
    assert (train.config, str(train.out), train.overrides) == (GIVEN[0], GIVEN[2], GIVEN[3:])
    assert train.resume_if_begun or start.standalone, (
        "torchrun counts restarts on the machine that failed only"
    )
