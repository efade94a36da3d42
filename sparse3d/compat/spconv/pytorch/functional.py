"""Sums of tensors whose voxels differ."""

import torch

from sparse3d.compat.spconv.pytorch.core import SparseConvTensor
from sparse3d_ops import hashing


def sparse_add(*tens: SparseConvTensor) -> SparseConvTensor:
    """Sum on the union of the voxels; a voxel that a tensor lacks counts as zero there.

    Where the largest tensor has all voxels, the result keeps its rows and its `indice_dict`, so that inverse
    convolutions go on; otherwise the rows are sorted and the dict is empty. A tensor that has a voxel twice
    adds both.
    """
    if not tens:
        raise ValueError("sparse_add needs at least one tensor")
    first = tens[0]
    for other in tens[1:]:
        mine, theirs = (
            (list(t.spatial_shape), t.batch_size, t.features.shape[1], t.features.device)
            for t in (first, other)
        )
        if mine != theirs:
            raise ValueError(
                f"sparse_add needs equal grids, batches, channels and devices, got {mine} and {theirs}"
            )
    keys, inverse, _ = hashing.unique(torch.cat([t.voxels.sites.keys() for t in tens]))
    features = torch.cat([t.features for t in tens])
    total = features.new_zeros(len(keys), features.shape[1]).index_add(0, inverse, features)
    sizes = [len(t.voxels) for t in tens]
    largest = max(range(len(tens)), key=sizes.__getitem__)
    if sizes[largest] == len(keys):
        start = sum(sizes[:largest])
        return tens[largest].replace_feature(total[inverse[start : start + len(keys)]])
    out = first.voxels.with_keys(keys)
    result = first.on(total, out)
    result.indice_dict = {}
    return result


sparse_add_hash_based = sparse_add
