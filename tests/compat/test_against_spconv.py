"""The stand-in gives spconv's numbers: both run the same networks, with spconv's state dicts, forward and backward.

spconv lives in an interpreter of its own: $SPARSE3D_PEERS_PYTHON, or .venv-peers, or this one where it is installed.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sparse3d.compat.spconv.pytorch as stand_in
from tests.compat import networks

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def peer_python() -> str:
    """An interpreter that has spconv."""
    named = os.environ.get("SPARSE3D_PEERS_PYTHON")
    candidates = [named] if named else [str(REPOSITORY / ".venv-peers" / "bin" / "python")]
    if not named and importlib.util.find_spec("spconv") is not None:
        candidates.append(sys.executable)
    for candidate in candidates:
        if Path(candidate).exists():
            return candidate
    pytest.skip("no interpreter with spconv; name one by $SPARSE3D_PEERS_PYTHON, or `make .venv-peers`")


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
        # Both sum in float64 in different orders. Absolute where the true value is 0: a bias before a batch norm.
        torch.testing.assert_close(
            ours[key], want, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}"
        )
        if key.startswith("state "):
            assert torch.equal(fresh[key], want), f"a seed gives other initial weights: {key}"
