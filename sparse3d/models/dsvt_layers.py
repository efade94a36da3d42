"""The layers of DSVT: attention of voxels within sets, cut along y and along x, and blocks of two of them.

Notation: N voxels of C channels; a `Partition` holds their sets in windows of one shape and shift. Source:
Wang et al., "DSVT: Dynamic Sparse Voxel Transformer with Rotated Sets" (arXiv 2301.06051), sections 3.2, 3.3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.nn import BatchNorm
from sparse3d_ops.set_attention import set_attention
from sparse3d_ops.windows import WindowSets, window_sets

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class WindowShape:
    """One way to lay windows over the voxels of a stage, all (x, y, z) in voxels."""

    grid: Triple
    window: Triple
    shift: Triple
    set_size: int

    @property
    def dims(self) -> int:
        """2 where positions within a window have no height."""
        return 2 if self.grid[2] == 1 else 3

    def partition(self, coordinates: Tensor) -> "Partition":
        sides = list(self.grid), list(self.window), list(self.shift)
        return Partition(self, window_sets(coordinates, *sides, self.set_size))


class Partition(NamedTuple):
    """The sets of the voxels at hand in one window shape."""

    shape: WindowShape
    sets: WindowSets

    def order(self, layer: int) -> Tensor:
        """Even layers look along y, odd ones along x: the rotation of the sets."""
        return self.sets.order_x if layer % 2 else self.sets.order_y


class PositionEmbedding(nn.Module):
    """Place of each voxel in its window, counted from the window's middle, through two linear maps."""

    def __init__(self, dims: int, channels: int, normalize: bool):
        super().__init__()
        self.dims, self.normalize = dims, normalize
        self.enter = nn.Linear(dims, channels)
        self.norm = BatchNorm(channels)
        self.leave = nn.Linear(channels, channels)

    def forward(self, partition: Partition) -> Float[Tensor, "N C"]:
        window, place = partition.shape.window, partition.sets.place
        if self.training or window[0] * window[1] * window[2] >= len(place):
            return self._embed(place, window)
        # Without the batch's statistics equal places have equal embeddings: each is computed once.
        axes = (torch.arange(size, dtype=place.dtype, device=place.device) for size in window)
        x, y, z = place.long().unbind(1)
        return self._embed(torch.cartesian_prod(*axes), window)[(x * window[1] + y) * window[2] + z]

    def _embed(self, place: Tensor, window: Triple) -> Tensor:
        size = self.enter.weight.new_tensor(window[: self.dims])
        location = place[:, : self.dims] - size / 2
        if self.normalize:
            location = location * (2 * torch.pi / size)
        return self.leave(self.norm.normalize(self.enter(location)).relu())


class SetSelfAttention(nn.Module):
    """Multi-head self-attention within sets, queries and keys with positions added.

    Its parameters are those of torch's nn.MultiheadAttention. Maps act on voxels and not on slots, of which
    there are more.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.zeros_(self.out_proj.bias)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, position: Tensor, partition: Partition, layer: int) -> Tensor:
        located = x + position
        inputs = zip(
            (located, located, x), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True
        )
        query, key, value = (F.linear(source, weight, bias) for source, weight, bias in inputs)
        sets, size = partition.sets, partition.shape.set_size
        found = set_attention(query, key, value, partition.order(layer), sets.offsets, size, self.heads)
        return self.out_proj(found)


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network, each with a residual and a norm; then one around both."""

    def __init__(self, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.attention = SetSelfAttention(channels, heads)
        self.attention_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, feedforward)
        self.narrow = nn.Linear(feedforward, channels)
        self.feedforward_norm = nn.LayerNorm(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, partition: Partition, layer: int) -> Tensor:
        attended = self.attention_norm(x + self.attention(x, position, partition, layer))
        hidden = self.narrow(F.gelu(self.widen(attended)))
        return self.norm(self.feedforward_norm(attended + hidden) + x)


class DSVTBlock(nn.Module):
    """Two layers in one window shape, the first along y, the second along x, and a residual around both.

    `shift` (0 or 1) says which of a stage's two window shapes this block works in. Each layer embeds places
    in these windows; with `legacy_positions` layer i embeds places in window shape i instead, wherever the
    block works. The reference does so by mistake, and its released weights were trained with it.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        feedforward: int,
        shift: int,
        shapes: tuple[WindowShape, WindowShape],
        *,
        normalize_positions: bool,
        legacy_positions: bool,
    ):
        super().__init__()
        self.shift, self.legacy_positions = shift, legacy_positions
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, feedforward) for _ in range(2))
        self.positions = nn.ModuleList(
            PositionEmbedding(shapes[0].dims, channels, normalize_positions) for _ in range(2)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, features: Float[Tensor, "N C"], partitions: tuple[Partition, Partition]
    ) -> Float[Tensor, "N C"]:
        x, partition = features, partitions[self.shift]
        for i, (layer, embed) in enumerate(zip(self.layers, self.positions, strict=True)):
            position = embed(partitions[i] if self.legacy_positions else partition)
            x = layer(x, position, partition, i)
        return self.norm(x + features)
