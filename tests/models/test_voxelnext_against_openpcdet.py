"""VoxelNeXt's backbone beside OpenPCDet's own file, which runs on `sparse3d.compat` in spconv's place.

$SPARSE3D_OPENPCDET names a clone of OpenPCDet; without it the test is skipped.
"""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d import SparseTensor
from sparse3d.compat.spconv import pytorch as spconv
from sparse3d.models.voxelnext_backbone import VoxelNeXtBackbone, VoxelNeXtBackboneConfig

FILE = "pcdet/models/backbones_3d/spconv_backbone_voxelnext.py"


class Settings(dict):
    """As OpenPCDet's configs: keys are attributes."""

    __getattr__ = dict.get


@pytest.fixture
def theirs(monkeypatch):
    root = os.environ.get("SPARSE3D_OPENPCDET")
    if not root or not (Path(root) / FILE).is_file():
        pytest.skip(f"$SPARSE3D_OPENPCDET does not name a clone of OpenPCDet with {FILE}")
    helpers = types.ModuleType("openpcdet_spconv_utils")
    helpers.spconv = spconv  # pyright: ignore
    helpers.replace_feature = lambda x, features: x.replace_feature(features)  # pyright: ignore
    monkeypatch.setitem(sys.modules, helpers.__name__, helpers)
    text = (Path(root) / FILE).read_text().replace("from ...utils.spconv_utils", f"from {helpers.__name__}")
    module = types.ModuleType("openpcdet_voxelnext")
    exec(compile(text, FILE, "exec"), module.__dict__)
    torch.manual_seed(0)
    return module.VoxelResBackBone8xVoxelNeXt(Settings(), 5, np.array([96, 80, 40])).double().eval()


def test_same_numbers_and_parameters(theirs):
    ours = VoxelNeXtBackbone(5, (96, 80, 41), VoxelNeXtBackboneConfig()).double().eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    pairs = [
        (a, b)
        for a, b in zip(
            [*theirs.parameters(), *theirs.buffers()], [*ours.parameters(), *ours.buffers()], strict=True
        )
        if a.dim() > 0
    ]
    with torch.no_grad():
        for a, b in pairs:
            if a.dim() < 4:  # norms: no layer is to be the identity
                a.copy_(torch.rand_like(a) + 0.5)
            # spconv's (Cout, kz, ky, kx, Cin) against ours, (kx, ky, kz, Cin, Cout)
            b.copy_(a if a.dim() < 4 else a.permute(*range(a.dim() - 2, 0, -1), a.dim() - 1, 0))
    coordinates = torch.cartesian_prod(torch.arange(2), torch.arange(96), torch.arange(80), torch.arange(41))
    coordinates = coordinates[torch.randperm(len(coordinates))[:600]].int()  # batch, x, y, z
    features = torch.randn(len(coordinates), 5, dtype=torch.float64)
    with torch.no_grad():
        said = theirs(
            {
                "voxel_features": features,
                "voxel_coords": coordinates[:, [0, 3, 2, 1]].contiguous(),
                "batch_size": 2,
            }
        )["encoded_spconv_tensor"]
        found = ours(SparseTensor(features, coordinates, shape=(96, 80, 41), batch_size=2))
    assert len(found) == len(said.features) and tuple(said.spatial_shape) == ours.bev_size[::-1]
    want = said.dense().permute(0, 1, 3, 2)
    torch.testing.assert_close(found.dense()[..., 0], want, rtol=1e-10, atol=1e-10)
