"""From the voxels of one DSVT stage to the coarser voxels of the next.

The P = sx * sy * sz voxels that a coarse voxel can hold have a slot each; slots without a voxel are zero and
take part. Source: DSVT (arXiv 2301.06051), section 3.4.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse3d_ops import hashing

Triple = tuple[int, int, int]
Pooling = Literal["attention", "linear", "maxpool"]
HEADS = 8  # of the pooling by attention, whatever the stages have


class Cells(NamedTuple):
    """Coarse voxels (M, 4) int32, sorted, and of each fine voxel the row of its cell and its slot there."""

    coordinates: Int[Tensor, "M 4"]
    cell: Int[Tensor, "N"]
    slot: Int[Tensor, "N"]


def cells_of(coordinates: Int[Tensor, "N 4"], stride: Triple) -> Cells:
    """The cells of `stride` (x, y, z) fine voxels that hold a voxel. Coordinates must not be negative."""
    sides = coordinates.new_tensor([1, *stride])
    keys, cell, _ = hashing.unique(hashing.pack(coordinates // sides))
    _, x, y, z = (coordinates % sides).long().unbind(1)
    return Cells(hashing.unpack(keys), cell, (x * stride[1] + y) * stride[2] + z)


def in_slots(features: Float[Tensor, "N C"], cells: Cells, slots: int) -> Float[Tensor, "M P C"]:
    """Features in the slots of their cells, zero elsewhere."""
    flat = features.new_zeros(len(cells.coordinates) * slots, features.shape[1])
    flat = flat.index_copy(0, cells.cell * slots + cells.slot, features)
    return flat.reshape(len(cells.coordinates), slots, features.shape[1])


class AttentionPooling(nn.Module):
    """The maximum over the slots asks all slots; the answer is added to it."""

    def __init__(self, channels: int, stride: Triple):
        super().__init__()
        self.slots = math.prod(stride)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.zeros_(self.out_proj.bias)
        self.position = nn.Parameter(0.01 * torch.randn(self.slots, channels))
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Float[Tensor, "N C"], cells: Cells) -> Float[Tensor, "M C"]:
        values = in_slots(features, cells, self.slots)
        best = values.amax(1, keepdim=True)
        inputs = zip(
            (best, values + self.position, values),
            self.in_proj_weight.chunk(3),
            self.in_proj_bias.chunk(3),
            strict=True,
        )
        query, key, value = (
            F.linear(source, weight, bias).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for source, weight, bias in inputs
        )
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1)
        return self.norm(self.out_proj(found) + best[:, 0])


class LinearPooling(nn.Module):
    """All slots side by side through one linear map, which may change the number of channels."""

    def __init__(self, channels: int, out_channels: int, stride: Triple):
        super().__init__()
        self.slots = math.prod(stride)
        self.linear = nn.Linear(self.slots * channels, out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, features: Float[Tensor, "N C"], cells: Cells) -> Float[Tensor, "M D"]:
        return self.norm(self.linear(in_slots(features, cells, self.slots).flatten(1)))


class MaxPooling(nn.Module):
    """The largest value of each channel over the slots; a zero where a slot is empty and all are below."""

    def __init__(self, stride: Triple):
        super().__init__()
        self.slots = math.prod(stride)

    def forward(self, features: Float[Tensor, "N C"], cells: Cells) -> Float[Tensor, "M C"]:
        return in_slots(features, cells, self.slots).amax(1)


def make_pooling(kind: Pooling, channels: int, out_channels: int, stride: Triple) -> nn.Module:
    """The pooling between two stages; the caller knows that only "linear" changes the channels."""
    match kind:
        case "attention":
            return AttentionPooling(channels, stride)
        case "linear":
            return LinearPooling(channels, out_channels, stride)
        case "maxpool":
            return MaxPooling(stride)
