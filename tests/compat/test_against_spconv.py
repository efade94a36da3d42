"""The stand-in gives spconv's numbers: both run the same networks, with spconv's state dicts, forward and
backward.

spconv runs in an interpreter of its own: see `peer_python` in tests/conftest.py.
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch

import sparse3d.compat.spconv.pytorch as stand_in
from tests.compat import networks


@pytest.fixture(scope="session")
def peer_results(peer_python, tmp_path_factory) -> Path:
    """Folder of what spconv gives for each network."""
    folder = tmp_path_factory.mktemp("spconv")
    command = [peer_python, str(Path(__file__).parent / "run_peer.py"), str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", networks.CASES)
def test_same_network_same_weights_same_numbers(name, peer_results):
    theirs = torch.load(peer_results / f"{name}.pt", weights_only=True)
    state = {k.removeprefix("state "): v for k, v in theirs.items() if k.startswith("state ")}
    fresh = networks.run(stand_in, name)
    ours = networks.run(stand_in, name, state)
    assert ours.keys() == theirs.keys()
    for key, want in theirs.items():
        # Both sum in float64 in different orders. Absolute where the true value is 0: a bias before a batch
        # norm.
        torch.testing.assert_close(
            ours[key], want, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}"
        )
        if key.startswith("state "):
            assert torch.equal(fresh[key], want), f"a seed gives other initial weights: {key}"


def test_points_fall_into_the_same_voxels_in_the_same_order_to_the_bit(peer_results):
    theirs = torch.load(peer_results / "points.pt", weights_only=True)
    ours = networks.voxelized(stand_in.utils.PointToVoxel)
    assert ours.keys() == theirs.keys()
    for key, want in theirs.items():
        assert ours[key].dtype == want.dtype and torch.equal(ours[key], want), key
