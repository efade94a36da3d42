"""The DSVT backbone: a sparse tensor through stages of set attention to a bird's-eye-view (BEV) map.

    voxels -> blocks -> pool -> blocks -> pool -> ... -> BEV map

Blocks are counted over all stages: even ones work in windows of the stage's shape, odd ones in windows that
are `hybrid_factor` times as large and shifted. Source: DSVT (arXiv 2301.06051), sections 3.1 to 3.4. Where we
differ: each layer embeds places in the windows that it works in (`legacy_pos_embed` for released weights).
"""

import math
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d import nn as snn
from sparse3d.errors import ConfigError
from sparse3d.models.dsvt_layers import DSVTBlock, WindowShape
from sparse3d.models.dsvt_pooling import HEADS, Pooling, cells_of, make_pooling
from sparse3d.tensor import SparseTensor

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class DSVTBackboneConfig:
    """One entry a stage in each tuple, (x, y, z) in voxels of the stage. The defaults are those of the pillar
    variant for Waymo."""

    channels: tuple[int, ...] = (192,)
    feedforward: tuple[int, ...] = (384,)  # hidden channels of the feed-forward networks
    heads: tuple[int, ...] = (8,)
    blocks: tuple[int, ...] = (4,)  # of two layers each
    set_sizes: tuple[int, ...] = (36,)  # most voxels of a set
    windows: tuple[Triple, ...] = ((12, 12, 1),)
    shifts: tuple[tuple[Triple, Triple], ...] = (((0, 0, 0), (6, 6, 0)),)  # of even blocks, of odd ones
    hybrid_factor: Triple = (2, 2, 1)  # windows of odd blocks are so much larger
    pool_strides: tuple[Triple, ...] = ()  # between stages: one fewer
    pooling: Pooling = "attention"  # "linear" alone may change the channels
    normalize_positions: bool = False  # places within a window in [-pi, pi) instead of voxels
    legacy_pos_embed: bool = False  # positions as the released weights were trained with

    def __post_init__(self) -> None:
        per_stage = (self.feedforward, self.heads, self.blocks, self.set_sizes, self.windows, self.shifts)
        stages = len(self.channels)
        if not stages or {len(t) for t in per_stage} != {stages} or len(self.pool_strides) != stages - 1:
            raise ConfigError(
                f"DSVT: every tuple needs one entry a stage, pool_strides one fewer, got {self}"
            )
        for channels, heads in zip(self.channels, self.heads, strict=True):
            if heads < 1 or channels % heads:
                raise ConfigError(f"DSVT: {heads} heads do not divide {channels} channels")
        if self.pooling != "linear" and len(set(self.channels)) > 1:
            raise ConfigError(
                f"DSVT: pooling '{self.pooling}' keeps the channels, but the stages have {self.channels}; "
                "use pooling 'linear'"
            )
        if self.pooling == "attention" and self.pool_strides and self.channels[0] % HEADS:
            raise ConfigError(
                f"DSVT: pooling by attention has {HEADS} heads, channels are {self.channels[0]}"
            )

    def grids(self, shape: Triple) -> list[Triple]:
        """The grid of each stage for one of the first, `shape`."""
        grids = [shape]
        for stride in self.pool_strides:
            grids.append(cast(Triple, tuple(-(-n // s) for n, s in zip(grids[-1], stride, strict=True))))
        return grids

    @property
    def stride(self) -> tuple[int, int]:
        """Voxels of the first stage along x and along y in one of the last."""
        return math.prod(s[0] for s in self.pool_strides), math.prod(s[1] for s in self.pool_strides)

    def window_shapes(self, stage: int, grid: Triple) -> tuple[WindowShape, WindowShape]:
        """Of even and of odd blocks."""
        window, size = self.windows[stage], self.set_sizes[stage]
        wide = cast(Triple, tuple(w * f for w, f in zip(window, self.hybrid_factor, strict=True)))
        even, odd = self.shifts[stage]
        return WindowShape(grid, window, even, size), WindowShape(grid, wide, odd, size)


class DSVTBackbone(nn.Module):
    """SparseTensor of `shape` (X, Y, Z) with channels[0] features -> (B, channels[-1] * Z', X', Y')."""

    def __init__(self, shape: Triple, config: DSVTBackboneConfig):
        super().__init__()
        self.config = config
        self.grids = config.grids(shape)
        self.window_shapes = [config.window_shapes(i, grid) for i, grid in enumerate(self.grids)]
        self.stages, self.pools = nn.ModuleList(), nn.ModuleList()
        for stage, channels in enumerate(config.channels):
            first = sum(config.blocks[:stage])
            self.stages.append(
                nn.ModuleList(self._block(stage, (first + i) % 2) for i in range(config.blocks[stage]))
            )
            if stage < len(config.pool_strides):
                stride, following = config.pool_strides[stage], config.channels[stage + 1]
                self.pools.append(make_pooling(config.pooling, channels, following, stride))
        self.to_bev = snn.ToBEV()
        size_x, size_y, size_z = self.grids[-1]
        self.bev_size, self.out_channels = (size_x, size_y), config.channels[-1] * size_z
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def _block(self, stage: int, shift: int) -> DSVTBlock:
        config = self.config
        return DSVTBlock(
            config.channels[stage],
            config.heads[stage],
            config.feedforward[stage],
            shift,
            self.window_shapes[stage],
            normalize_positions=config.normalize_positions,
            legacy_positions=config.legacy_pos_embed,
        )

    def features(self, voxels: SparseTensor) -> SparseTensor:
        """The voxels of the last stage."""
        for stage, blocks in enumerate(self.stages):
            even, odd = self.window_shapes[stage]
            partitions = even.partition(voxels.coordinates), odd.partition(voxels.coordinates)
            x = voxels.features
            for block in cast(nn.ModuleList, blocks):
                x = block(x, partitions)
            voxels = voxels.replace(x)
            if stage < len(self.pools):
                cells = cells_of(voxels.coordinates, self.config.pool_strides[stage])
                pooled = self.pools[stage](voxels.features, cells)
                size, batch = self.grids[stage + 1], voxels.batch_size
                voxels = SparseTensor(pooled, cells.coordinates, batch_size=batch, shape=size)
        return voxels

    def forward(self, voxels: SparseTensor) -> Float[Tensor, "B C X Y"]:
        found = self.features(voxels)
        if self.grids[-1][2] > 1:
            return self.to_bev(found)
        # Rows of one level of height lie as a map in channels-last memory has them: nothing is copied twice.
        size_x, size_y = self.bev_size
        b, x, y, _ = found.coordinates.long().unbind(1)
        flat = found.features.new_zeros(found.batch_size * size_x * size_y, found.channels)
        flat = flat.index_copy(0, (b * size_x + x) * size_y + y, found.features)
        return flat.reshape(found.batch_size, size_x, size_y, found.channels).permute(0, 3, 1, 2)
