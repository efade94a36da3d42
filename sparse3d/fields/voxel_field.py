"""A radiance field on sparse voxels: density and spherical harmonics at the corners of those voxels that hold
something, found through the voxel hash.

Plenoxels (arXiv 2112.05131) without its dense index, with the leaves of SVRaster (arXiv 2412.04459): values
at shared corners, so that voxels can be split exactly and dropped one by one. It starts coarse; `grow` splits
all voxels and `prune` drops the empty ones. Where we differ: sigma = softplus(interpolated value) / `unit`
with a unit of length of its own; colours are the sigmoid of the harmonics; samples that are nearly
transparent or behind what is opaque are left out of sums and gradients (`sparse3d_ops.visible_samples`).

In a space with a contraction the voxels fill that space's own coordinates, rays are cut into pieces that are
straight there (`pieces`), and densities count along the ray in own coordinates: what is far away is as
opaque as it is drawn, whatever its size.
"""

from dataclasses import dataclass
from math import log2
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d.fields.protocol import Rendered, Traced
from sparse3d.fields.sampled_field import rendered
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_lattice import VoxelLattice, interpolate
from sparse3d_ops.composite import composite
from sparse3d_ops.raymarch import Samples
from sparse3d_ops.segment import gather_rows
from sparse3d_ops.spherical_harmonics import sh_colors
from sparse3d_ops.visible_samples import visible_samples


@dataclass(frozen=True)
class VoxelFieldConfig:
    """The cube that the field fills, and how it is sampled."""

    kind: Literal["voxels"] = "voxels"
    space: SpaceConfig = SpaceConfig()
    resolution: int = 32  # voxels along a side, before it grows
    sh_degree: int = 0  # of the colours, 0 to 4; 0 looks the same from everywhere
    step: float = 0.5  # voxels between samples
    # of the side, in own coordinates: the length that densities are counted in, about a voxel of the end
    unit: float = 1 / 75
    initial_density: float = -3.0  # before softplus
    min_alpha: float = 1e-4  # samples with less are left out
    stop: float = 1e-3  # light below which a ray ends
    tv_density: float = 0.0  # weight of the densities' total variation around what a batch saw
    tv_fall: float = 1.0  # of that weight each time the voxels are split

    def __post_init__(self):
        for name in ("step", "unit", "resolution"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"sh_degree must be 0 to 4, got {self.sh_degree}")


class _Samples:
    """What rays see of a field: starts (R + 1,), and for S samples the ray and its direction, t and dt in
    metres, point, voxel, corners. `step` is that between samples, in the field's unit."""

    def __init__(self, field: "VoxelField", origins: Tensor, directions: Tensor, offsets: Tensor):
        config, lattice, space, unit = field.config, field.lattice, field.config.space, field.unit
        pieces = space.pieces(origins, directions) if space.unbounded else None
        if pieces is None:
            begins, ways = origins.detach(), directions.detach()
            spans = torch.stack(space.span(origins, directions), 1)
        else:
            begins, ways = pieces.origins, pieces.directions
            spans = torch.stack([torch.zeros_like(pieces.lengths), pieces.lengths], 1)
            offsets = offsets.repeat_interleave(pieces.per_ray)
        self.step = config.step * field.voxel_size / unit
        starts, t, voxel = visible_samples(
            *lattice.table,
            lattice.corner_rows,
            field.raw_density.detach()[:, 0].contiguous(),
            begins / unit,
            ways,
            spans / unit,
            offsets,
            [value / unit for value in space.own_low],
            field.voxel_size / unit,
            self.step,
            config.min_alpha,
            config.stop,
        )
        self.t, self.voxel = t * unit, voxel.long()
        self.dt = torch.full_like(t, self.step * unit)
        if pieces is not None:
            piece = torch.repeat_interleave(starts.diff(), output_size=len(t))
            ends = [pieces.metres(self.t + part * self.dt, piece) for part in (-0.5, 0.5)]
            self.t, self.dt = pieces.metres(self.t, piece), ends[1] - ends[0]
            starts = starts[:: pieces.per_ray].contiguous()
        self.starts = starts
        self.ray = torch.repeat_interleave(starts.diff(), output_size=len(t))
        self.directions = directions[self.ray]
        self.points = origins[self.ray] + self.t[:, None] * self.directions
        self.corners = lattice.corner_rows[self.voxel]
        self.weights = lattice.weights(field.in_voxels(self.points)[0], self.voxel)


class VoxelField(nn.Module):
    """See the module. `raw_density` (P, 1) and `harmonics` (P, 3 K) are at the lattice's points, K entries a
    colour channel; they are replaced by others when the field changes its shape."""

    coordinates: Tensor

    def __init__(self, config: VoxelFieldConfig = VoxelFieldConfig()):
        super().__init__()
        self.config = config
        lattice = VoxelLattice.full(config.resolution)
        points, entries = len(lattice.points), (config.sh_degree + 1) ** 2
        self.register_buffer("coordinates", lattice.coordinates)
        self.register_buffer("resolution", torch.tensor(config.resolution))
        self.raw_density = nn.Parameter(torch.full((points, 1), config.initial_density))
        self.harmonics = nn.Parameter(torch.zeros(points, 3 * entries))
        self._lattice = lattice

    @property
    def lattice(self) -> VoxelLattice:
        """The voxels, with their corners and hash table."""
        if self._lattice.coordinates is not self.coordinates:  # moved to another device, or loaded
            self._lattice = VoxelLattice(self.coordinates, int(self.resolution))
        return self._lattice

    @property
    def unit(self) -> float:
        """Own coordinates: the length in which `raw_density`, after softplus, is counted."""
        return self.config.unit * self.config.space.own_side

    @property
    def voxel_size(self) -> float:
        """Own coordinates along a side of a voxel."""
        return self.config.space.own_side / self.lattice.resolution

    def in_voxels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) world -> positions (N, 3) in voxels from the lattice's corner, and which (N,) points are in
        the field."""
        own, inside = self.config.space.to_own(points)
        low = torch.tensor(self.config.space.own_low).to(own)
        return (own - low) / self.voxel_size, inside

    def density(self, points: Tensor) -> Tensor:
        """(N, 3) world -> (N,) in 1 / metre, 0 where there is no voxel; with a contraction as it is for one
        who looks from the middle, or from the viewer."""
        inside, corners, weights = self._at(points)
        raw = interpolate(self.raw_density, corners, weights)[:, 0]
        sigma = nn.functional.softplus(raw) / self.unit * self.config.space.stretch(points)
        return sigma.where(inside, 0.0)

    def color(self, points: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) world, (N, 3) unit viewing directions -> (N, 3) in [0, 1]; grey where there is no voxel."""
        inside, corners, weights = self._at(points)
        values = interpolate(self.harmonics, corners, weights)
        return self._shade(values, directions).where(inside[:, None], 0.5)

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        background: Tensor | None = None,
        *,
        offsets: Tensor | None = None,
        normals: bool = False,
        ends: Tensor | None = None,
    ) -> Rendered:
        """(R, 3), (R, 3) unit -> what rays see over `background`, (3,) or (R, 3), black where it is None.

        `offsets` (R,) in [0, 1) shift the samples of each ray by a part of a step, the middle where None.
        With `normals`, also the mean of the negative gradients' directions. Rays end at `ends` (R,), metres:
        the background stands there.
        """
        if offsets is None:
            offsets = torch.full_like(origins[:, 0], 0.5)
        samples = _Samples(self, origins, directions, offsets)
        return self._render(samples, background, normals, ends).seen

    def trace(self, origins: Tensor, directions: Tensor, background: Tensor, offsets: Tensor) -> Traced:
        """See `RadianceField.trace`. Term: `tv_density`, the total variation of the densities around what was
        seen: half the sum of squared differences of neighbouring lattice points. Points that no ray touched
        are left out, or Adam would move them as fast as the others."""
        samples = _Samples(self, origins, directions, offsets)
        traced = self._render(samples, background, False)
        if self.config.tv_density > 0:
            splits = log2(self.lattice.resolution / self.config.resolution)
            weight = self.config.tv_density * self.config.tv_fall**splits
            traced = traced._replace(terms={"tv_density": weight * self._variation(samples)})
        return traced

    def advance(self, progress: float, step: int) -> None:
        """See `RadianceField.advance`: nothing follows here, `grow` and `prune` say when they are called."""

    def _variation(self, samples: _Samples) -> Tensor:
        edges = self.lattice.edges
        touched = torch.zeros(len(self.raw_density), dtype=torch.bool, device=edges.device)
        touched[samples.corners.flatten().long()] = True
        edges = edges[:, touched[edges].all(0)]
        ends = gather_rows(self.raw_density, edges.flatten()).view(2, -1)
        return (ends[0] - ends[1]).square().sum() / 2

    def _render(
        self,
        samples: _Samples,
        background: Tensor | None,
        normals: bool,
        ends: Tensor | None = None,
    ) -> Traced:
        # Both at once: their gradients share the search for what belongs to a point.
        both = torch.cat([self.raw_density, self.harmonics], 1)
        raw, harmonics = interpolate(both, samples.corners, samples.weights).split([1, both.shape[1] - 1], 1)
        raw, shade = raw[:, 0], self._shade(harmonics, samples.directions)
        values = [shade, samples.t[:, None]]
        if normals:
            values.append(self._normals(samples))
        steps = torch.full_like(raw, samples.step)
        sigma = nn.functional.softplus(raw)
        if ends is not None:
            sigma = sigma.where(samples.t < ends[samples.ray], 0.0)
        result = composite(sigma, torch.cat(values, 1), steps, samples.starts)
        packed = Samples(samples.starts, samples.t, samples.dt)
        in_metres = sigma * (samples.step / samples.dt.clamp(min=1e-9))
        return Traced(rendered(result, background), packed, in_metres, result.weights, {})

    # ---- shape -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def grow(self) -> None:
        """Split each voxel into eight. The field stays what it was."""
        lattice, corners, weights = self.lattice.split()
        values = (interpolate(v, corners, weights) for v in (self.raw_density, self.harmonics))
        self._reshape(lattice, *values)

    @torch.no_grad()
    def prune(self, min_alpha: float = 0.01) -> int:
        """Drop voxels that let through more than 1 - min_alpha of the light along a step, wherever in them,
        and have only such ones around them; says how many. The last voxel stays."""
        lattice = self.lattice
        largest = self.raw_density[lattice.corner_rows.long(), 0].amax(1)
        depth = nn.functional.softplus(largest) * self.config.step * self.voxel_size / self.unit
        solid = -torch.expm1(-depth) >= min_alpha
        solid[largest.argmax()] = True
        return self.keep(lattice.dilate(solid))

    @torch.no_grad()
    def keep(self, kept: Tensor) -> int:
        """Drop all voxels but those of (N,) bool; says how many. ValueError where none is left."""
        if kept.all():
            return 0
        if not kept.any():
            raise ValueError("no voxel is left")
        fewer, rows = self.lattice.keep(kept)
        self._reshape(fewer, self.raw_density[rows], self.harmonics[rows])
        return len(kept) - len(fewer.coordinates)

    def reshape_for(self, tensors: dict[str, Tensor]) -> None:
        """Take on the shape of a state dict, so that it can be loaded."""
        lattice = VoxelLattice(tensors["coordinates"].to(self.coordinates.device), int(tensors["resolution"]))
        like = {"device": self.coordinates.device, "dtype": self.raw_density.dtype}
        shapes = (tensors[name].shape for name in ("raw_density", "harmonics"))
        self._reshape(lattice, *(torch.zeros(shape, **like) for shape in shapes))

    def _reshape(self, lattice: VoxelLattice, raw_density: Tensor, harmonics: Tensor) -> None:
        self._lattice = lattice
        self.coordinates = lattice.coordinates
        self.resolution = torch.tensor(lattice.resolution, device=lattice.coordinates.device)
        self.raw_density = nn.Parameter(raw_density.detach().clone())
        self.harmonics = nn.Parameter(harmonics.detach().clone())

    # ---- parts -------------------------------------------------------------------------------------------

    def _at(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        positions, inside = self.in_voxels(points)
        voxel = self.lattice.find(positions)
        inside, voxel = inside & (voxel >= 0), voxel.clamp(min=0)
        return inside, self.lattice.corner_rows[voxel], self.lattice.weights(positions, voxel)

    def _shade(self, harmonics: Tensor, directions: Tensor) -> Tensor:
        # (S, K, 3): the entries of a basis come before the channels.
        entries = harmonics.reshape(len(harmonics), harmonics.shape[1] // 3, 3)
        return torch.sigmoid(sh_colors(entries, directions))

    def _normals(self, samples: _Samples) -> Tensor:
        with torch.enable_grad():
            points = samples.points.detach().requires_grad_()
            weights = self.lattice.weights(self.in_voxels(points)[0], samples.voxel)
            raw = interpolate(self.raw_density.detach(), samples.corners, weights).sum()
            (slope,) = torch.autograd.grad(raw, points)
        return -nn.functional.normalize(slope, dim=1, eps=1e-9)

    def __repr__(self) -> str:
        return f"VoxelField({len(self.coordinates)} voxels of {self.lattice.resolution}^3, {self.config})"
