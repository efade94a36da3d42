"""Fixtures shared by all tests."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption(
        "--bodies",
        choices=("numba", "triton"),
        default="numba",
        help="triton: the ops run their CUDA kernels on CPU tensors, in Triton's interpreter",
    )
    parser.addoption(
        "--launches",
        type=Path,
        help="with --bodies triton: a folder in which processes that share the tests note what they launched",
    )


def pytest_configure(config):
    # A second thread of torch brings these small tensors nothing, and where the cores are shared each of its
    # parallel loops waits for the other core. What is about threads sets their number.
    torch.set_num_threads(1)
    if config.getoption("--bodies") == "triton":
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which nothing has done yet
        from tests.ops import bodies

        bodies.use_triton()


def pytest_sessionfinish(session):
    folder = session.config.getoption("--launches")
    if folder is not None and session.config.getoption("--bodies") == "triton":
        from tests.ops import launches

        launches.keep(folder)


def pytest_collection_modifyitems(config, items):
    """Leave out what is about the other bodies. What is slow comes first, so that processes that share the
    tests end at about the same time; what looks back on all launches comes last."""
    other = "numba_bodies" if config.getoption("--bodies") == "triton" else "triton_bodies"
    left_out = [item for item in items if item.get_closest_marker(other)]
    config.hook.pytest_deselected(items=left_out)
    kept = (item for item in items if not item.get_closest_marker(other))
    items[:] = sorted(
        kept,
        key=lambda item: (item.path.name == "test_triton.py", item.get_closest_marker("slow") is None),
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans ($SPARSE3D_DATA); tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("SPARSE3D_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set $SPARSE3D_DATA to its folder")
    return root


@pytest.fixture(scope="session")
def peer_python() -> str:
    """An interpreter that has torch and the real spconv: $SPARSE3D_PEERS_PYTHON, or .venv-peers of this
    repository.

    Tests that compare with spconv are skipped where there is none: `pip install spconv` into such an
    environment.
    """
    python = os.environ.get("SPARSE3D_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"no interpreter with spconv at {python}; set $SPARSE3D_PEERS_PYTHON to one")
    found = subprocess.run([python, "-c", "import spconv.pytorch"], capture_output=True)
    if found.returncode != 0:
        pytest.skip(f"{python} has no spconv; install it there with: pip install spconv")
    return str(python)
