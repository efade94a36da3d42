"""Importing does nothing: no optional package, no CUDA; the command line answers before heavy things load."""

import importlib
import json
import subprocess
import sys

import pytest

_TELL = "import json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `statement`."""
    command = [sys.executable, "-c", f"{statement}\n{_TELL}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["sparse3d", "sparse3d.nn", "sparse3d.recipes.detection"])
def test_import_loads_nothing_optional_and_leaves_cuda_alone(module):
    loaded = loaded_by(
        f"import {module}\nimport sys, torch\n"
        "assert not torch.cuda.is_initialized()\n"
        # torch itself may look whether triton is there; only kernels import the language.
        "assert 'triton.language' not in sys.modules"
    )
    assert not loaded & {"open3d", "tensorboard", "matplotlib", "pytest", "spconv"}


def test_import_changes_no_setting_of_torch():
    look = "torch.get_rng_state().sum(), torch.get_num_threads(), torch.get_default_dtype()"
    loaded_by(
        f"import torch\nbefore = {look}\nimport sparse3d.recipes.detection\nassert before == ({look})\n"
        "assert not torch.are_deterministic_algorithms_enabled()"
    )


def test_package_and_command_line_answer_before_anything_heavy_loads():
    loaded = loaded_by("import sparse3d.cli\nsparse3d.cli.main(['--help'])\nsparse3d.cli.main(['trian'])")
    assert not loaded & {"torch", "numba", "numpy", "yaml", "rich", "PIL", "safetensors"}


def test_the_package_gives_its_names_on_first_use():
    loaded_by("import sparse3d\nassert sparse3d.SparseTensor and sparse3d.cat")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        importlib.import_module("sparse3d").Nothing  # noqa: B018
