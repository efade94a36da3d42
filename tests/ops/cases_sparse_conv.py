"""Sparse convolution and its weight gradient under the law suite."""

import torch

from sparse3d_ops import sparse_conv
from tests.ops.cases_voxels import CLOUDS, GEOMETRIES
from tests.ops.laws import OpLaw
from tests.oracles import sparse_conv as oracle
from tests.oracles import voxels


def _map(name, geometry):
    sites = CLOUDS[name]()
    if geometry == "submanifold":
        return voxels.submanifold_map(sites, (3, 3, 1), (1, 1, 1))
    outputs = voxels.strided_sites(sites, *GEOMETRIES[geometry], [])
    return voxels.kernel_map(sites, outputs, *GEOMETRIES[geometry])


def _case(name, geometry, channels, groups, of_weight):
    def make(dtype, device):
        table, reverse = _map(name, geometry)
        cin, cout = channels
        x = torch.randn(reverse.shape[0], cin, dtype=dtype).to(device)
        last = (
            torch.randn(table.shape[0], cout, dtype=dtype)
            if of_weight
            else torch.randn(table.shape[1], cin // groups, cout, dtype=dtype)
        ).to(device)
        return x, last, table.to(device), reverse.to(device), groups

    return make


def _cases(of_weight):
    settings = {
        "empty": ("empty", "submanifold", (3, 5), 1),
        "single": ("single", "submanifold", (4, 16), 1),
        "dense": ("dense", "submanifold", (5, 7), 1),
        "negative_strided": ("negative", "kernel3_stride2", (2, 3), 1),
        "border": ("border", "submanifold", (2, 2), 1),
        "whole_vectors": ("dense", "kernel2_stride2", (9, 48), 1),
        "many_vectors": ("dense", "kernel2_stride2", (4, 65), 1),
        "depthwise": ("dense", "submanifold", (6, 6), 6),
        "grouped": ("dense", "kernel2_stride2", (6, 9), 3),
        "groups_of_whole_vectors": ("dense", "kernel2_stride2", (4, 64), 2),
        "groups_joined_to_vectors": ("dense", "kernel2_stride2", (16, 32), 8),
        "several_outputs_a_channel": ("dense", "kernel2_stride2", (8, 16), 8),
    }
    return {name: _case(*setting, of_weight) for name, setting in settings.items()}


SMALL = ("empty", "single", "negative_strided", "border", "depthwise", "grouped")
LAWS = [
    OpLaw(sparse_conv.sparse_conv, oracle.sparse_conv, _cases(False), (0, 1), gradient_cases=SMALL),
    OpLaw(
        sparse_conv.sparse_conv_weight_gradient,
        oracle.sparse_conv_weight_gradient,
        _cases(True),
        (0, 1),
        gradient_cases=SMALL,
    ),
]
