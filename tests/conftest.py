"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans ($SPARSE3D_DATA); tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("SPARSE3D_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set $SPARSE3D_DATA to its folder")
    return root
