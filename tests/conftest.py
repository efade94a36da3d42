"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption(
        "--bodies",
        choices=("numba", "triton"),
        default="numba",
        help="triton: the ops run their CUDA kernels on CPU tensors, in Triton's interpreter",
    )


def pytest_configure(config):
    if config.getoption("--bodies") == "triton":
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which nothing has done yet
        from tests.ops import bodies

        bodies.use_triton()


def pytest_collection_modifyitems(config, items):
    """Leave out what is about the other bodies. What looks back on all launches comes last."""
    other = "numba_bodies" if config.getoption("--bodies") == "triton" else "triton_bodies"
    left_out = [item for item in items if item.get_closest_marker(other)]
    config.hook.pytest_deselected(items=left_out)
    kept = (item for item in items if not item.get_closest_marker(other))
    items[:] = sorted(kept, key=lambda item: item.path.name == "test_triton.py")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans ($SPARSE3D_DATA); tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("SPARSE3D_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set $SPARSE3D_DATA to its folder")
    return root
