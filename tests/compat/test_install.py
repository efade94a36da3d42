"""Standing in for spconv under its own names, in fresh interpreters."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sparse3d import compat
from sparse3d.compat import installing, spconv

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def in_fresh_python(script: str) -> None:
    paths = f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / 'ops')!r}]\n"
    done = subprocess.run([sys.executable, "-c", paths + script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_import_of_public_code_finds_the_stand_in():
    in_fresh_python(
        "import sparse3d.compat.spconv.pytorch\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('spconv', 'cumm')]\n"
        "sparse3d.compat.install()\n"
        "sparse3d.compat.install()\n"  # a second time changes nothing
        "import spconv\n"
        "assert float(spconv.__version__[2:]) >= 2.2\n"
        "spconv.constants.SPCONV_USE_DIRECT_TABLE = False\n"
        "import spconv.pytorch as sp\n"
        "from spconv.core import ConvAlgo, AlgoHint\n"
        "from spconv.pytorch.core import ConvAlgo as same, SparseConvTensor, expand_nd\n"
        "assert same is ConvAlgo is sp.ConvAlgo is spconv.ConvAlgo\n"
        "import spconv.core as core; core.constants.SPCONV_ALLOW_TF32 = True\n"
        "from spconv.constants import FILTER_HWIO, SPCONV_ALLOW_TF32\n"
        "from spconv.pytorch import functional as Fsp, ops\n"
        "from spconv.pytorch.conv import SparseConv3d, SparseConvolution, SubMConv3d\n"
        "from spconv.pytorch.modules import SparseModule, is_spconv_module, SparseSequential\n"
        "from spconv.pytorch.utils import PointToVoxel, gather_features_by_pc_voxel_id\n"
        "from spconv.pytorch.ops import get_indice_pairs, get_conv_output_size\n"
        "from spconv.pytorch.pool import SparseMaxPool3d\n"
        "from spconv.pytorch.tables import AddTable, ConcatTable, JoinTable\n"
        "from spconv.pytorch.identity import Identity\n"
        "import spconv.pytorch.functional as spF\n"
        "from spconv.utils import Point2VoxelCPU3d, Point2VoxelGPU3d, nullcontext\n"
        "import cumm.tensorview as tv\n"
        "assert issubclass(sp.SubMConv3d, sp.conv.SparseConvolution) and sp.modules.SparseModule\n"
        "assert sp.SparseConvTensor is SparseConvTensor\n"
        "try:\n    from spconv.utils import VoxelGeneratorV2\n"  # how public code tells version 1
        "except ImportError: pass\n"
        "else: raise AssertionError\n"
        "sparse3d.compat.uninstall()\n"
        "left = [n for n, m in sys.modules.items() if getattr(m, '__name__', n) != n]\n"
        "assert not [n for n in left if n.split('.')[0] in ('spconv', 'cumm')]\n"
    )


def test_a_real_spconv_in_use_is_not_replaced_unasked(monkeypatch):
    real = ModuleType("spconv")
    monkeypatch.setitem(sys.modules, "spconv", real)
    with pytest.raises(
        ImportError, match=r"is imported already \(spconv\); call sparse3d.compat.install\(\)"
    ):
        compat.install()
    assert sys.modules["spconv"] is real
    try:
        compat.install(replace=True)
        assert importlib.import_module("spconv.pytorch").__name__ == "sparse3d.compat.spconv.pytorch"
    finally:
        compat.uninstall()
    assert "spconv" not in sys.modules and "spconv.pytorch" not in sys.modules


def test_every_module_of_the_stand_in_is_installed():
    folder = Path(spconv.__file__).parent
    found = {
        ".".join(("spconv", *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        for path in folder.rglob("*.py")
    }
    assert found == set(installing.SPCONV)


@pytest.mark.parametrize("attribute", ["SubMConv", "SparseConv", "SparseConvTranspose", "SparseInverseConv"])
def test_layers_take_spconvs_arguments_by_position_and_name(attribute):
    import sparse3d.compat.spconv.pytorch as sp

    named = dict(algo=sp.ConvAlgo.Native, fp32_accum=True, large_kernel_fast_algo=True, name="conv")
    for axes in (1, 2, 3, 4):
        make = getattr(sp, f"{attribute}{axes}d")
        if attribute == "SparseInverseConv":
            layer = make(4, 6, 3, "key", False, **named)
        elif attribute == "SubMConv":
            layer = make(4, 6, 3, 1, 0, 1, 1, False, "key", **named)
        else:
            layer = make(4, 6, 3, 1, 0, 1, 1, False, "key", record_voxel_count=True, **named)
        assert layer.weight.shape == (6, *[3] * axes, 4) and layer.bias is None
        assert layer.indice_key == "key" and layer.name == "conv" and sp.modules.is_sparse_conv(layer)
