"""`spconv.pytorch` on sparse3d: the layers."""

from sparse3d.compat.spconv.core import AlgoHint as AlgoHint
from sparse3d.compat.spconv.pytorch import functional as functional
from sparse3d.compat.spconv.pytorch import ops as ops
from sparse3d.compat.spconv.pytorch import utils as utils
from sparse3d.compat.spconv.pytorch.conv import SparseConv1d as SparseConv1d
from sparse3d.compat.spconv.pytorch.conv import SparseConv2d as SparseConv2d
from sparse3d.compat.spconv.pytorch.conv import SparseConv3d as SparseConv3d
from sparse3d.compat.spconv.pytorch.conv import SparseConv4d as SparseConv4d
from sparse3d.compat.spconv.pytorch.conv import SparseConvTranspose1d as SparseConvTranspose1d
from sparse3d.compat.spconv.pytorch.conv import SparseConvTranspose2d as SparseConvTranspose2d
from sparse3d.compat.spconv.pytorch.conv import SparseConvTranspose3d as SparseConvTranspose3d
from sparse3d.compat.spconv.pytorch.conv import SparseConvTranspose4d as SparseConvTranspose4d
from sparse3d.compat.spconv.pytorch.conv import SparseInverseConv1d as SparseInverseConv1d
from sparse3d.compat.spconv.pytorch.conv import SparseInverseConv2d as SparseInverseConv2d
from sparse3d.compat.spconv.pytorch.conv import SparseInverseConv3d as SparseInverseConv3d
from sparse3d.compat.spconv.pytorch.conv import SparseInverseConv4d as SparseInverseConv4d
from sparse3d.compat.spconv.pytorch.conv import SubMConv1d as SubMConv1d
from sparse3d.compat.spconv.pytorch.conv import SubMConv2d as SubMConv2d
from sparse3d.compat.spconv.pytorch.conv import SubMConv3d as SubMConv3d
from sparse3d.compat.spconv.pytorch.conv import SubMConv4d as SubMConv4d
from sparse3d.compat.spconv.pytorch.core import SparseConvTensor as SparseConvTensor
from sparse3d.compat.spconv.pytorch.identity import Identity as Identity
from sparse3d.compat.spconv.pytorch.modules import SparseBatchNorm as SparseBatchNorm
from sparse3d.compat.spconv.pytorch.modules import SparseIdentity as SparseIdentity
from sparse3d.compat.spconv.pytorch.modules import SparseModule as SparseModule
from sparse3d.compat.spconv.pytorch.modules import SparseReLU as SparseReLU
from sparse3d.compat.spconv.pytorch.modules import SparseSequential as SparseSequential
from sparse3d.compat.spconv.pytorch.modules import SparseSyncBatchNorm as SparseSyncBatchNorm
from sparse3d.compat.spconv.pytorch.modules import (
    assign_name_for_sparse_modules as assign_name_for_sparse_modules,
)
from sparse3d.compat.spconv.pytorch.ops import ConvAlgo as ConvAlgo
from sparse3d.compat.spconv.pytorch.pool import SparseAvgPool1d as SparseAvgPool1d
from sparse3d.compat.spconv.pytorch.pool import SparseAvgPool2d as SparseAvgPool2d
from sparse3d.compat.spconv.pytorch.pool import SparseAvgPool3d as SparseAvgPool3d
from sparse3d.compat.spconv.pytorch.pool import SparseGlobalAvgPool as SparseGlobalAvgPool
from sparse3d.compat.spconv.pytorch.pool import SparseGlobalMaxPool as SparseGlobalMaxPool
from sparse3d.compat.spconv.pytorch.pool import SparseMaxPool1d as SparseMaxPool1d
from sparse3d.compat.spconv.pytorch.pool import SparseMaxPool2d as SparseMaxPool2d
from sparse3d.compat.spconv.pytorch.pool import SparseMaxPool3d as SparseMaxPool3d
from sparse3d.compat.spconv.pytorch.pool import SparseMaxPool4d as SparseMaxPool4d
from sparse3d.compat.spconv.pytorch.tables import AddTable as AddTable
from sparse3d.compat.spconv.pytorch.tables import AddTableMisaligned as AddTableMisaligned
from sparse3d.compat.spconv.pytorch.tables import ConcatTable as ConcatTable
from sparse3d.compat.spconv.pytorch.tables import JoinTable as JoinTable


class ToDense(SparseModule):
    """The volume (B, C, *spatial_shape)."""

    def forward(self, x: SparseConvTensor):
        return x.dense()


class RemoveGrid(SparseModule):
    """The tensor without the buffer that was given as `grid`."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        out = x.shadow_copy()
        out.grid = None
        return out
