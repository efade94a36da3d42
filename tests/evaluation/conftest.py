"""The interpreter with the data sets' own evaluation code."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = "nuscenes-devkit==1.2.0 av2==0.3.6 motmetrics==1.4.0"


@pytest.fixture(scope="session")
def run_devkit() -> Callable[[str, Path], dict[str, Any]]:
    """Runs one tool of devkits/run_devkits.py on a folder: $SPARSE3D_DEVKITS_PYTHON, or .venv-devkits of this
    repository, is the interpreter. Tests are skipped where there is none.
    """
    default = REPOSITORY / ".venv-devkits" / "bin" / "python"
    python = Path(os.environ.get("SPARSE3D_DEVKITS_PYTHON", default))
    if not python.exists():
        pytest.skip(
            f"no interpreter at {python}; make an environment, pip install {PACKAGES} into it, "
            "and name its python in $SPARSE3D_DEVKITS_PYTHON"
        )

    def run(tool: str, folder: Path) -> dict[str, Any]:
        script = Path(__file__).parent / "devkits" / "run_devkits.py"
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [python, str(script), tool, str(folder)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "numbers.json").read_text())

    return run
