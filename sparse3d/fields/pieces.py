"""Rays in the coordinates of a space that bends them: cut into pieces that are straight there.

Notation: on each piece the map is projective, X -> N(X) / w(X) with N and w affine. Along a ray X = o + t d
let a = N(o), b = dN/dt, w = w(o), v = dw/dt. Then the ray's image starts in a / w, runs along b w - a v, and
has after t come the way s = t k / (w (w + t v)) with k = |b w - a v|; so t = s w^2 / (k - s w v).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Pieces:
    """P pieces, `per_ray` of each ray one after the other: `numerator` and `slope` (P, 3), a and b above,
    `denominator` and `fall` (P,), w and v, all where the piece begins, `begin` (P,) metres along its ray and
    `length` (P,) metres, 0 for a piece that is none."""

    per_ray: int
    begin: Tensor
    length: Tensor
    numerator: Tensor
    slope: Tensor
    denominator: Tensor
    fall: Tensor

    @cached_property
    def origins(self) -> Tensor:
        """(P, 3) where pieces begin, in the space's coordinates."""
        return self.numerator / self.denominator[:, None]

    @cached_property
    def _way(self) -> Tensor:
        return self.slope * self.denominator[:, None] - self.numerator * self.fall[:, None]

    @cached_property
    def directions(self) -> Tensor:
        """(P, 3) of length 1."""
        return normalize(self._way, dim=1, eps=_LEAST)

    @cached_property
    def lengths(self) -> Tensor:
        """(P,) in the space's coordinates."""
        return self._from_metres(self.length)

    def metres(self, s: Tensor, piece: Tensor) -> Tensor:
        """(S,) ways along the pieces (S,), in the space's coordinates -> metres along their rays."""
        w, v = self.denominator[piece], self.fall[piece]
        k = self._way.norm(dim=1)[piece]
        t = s * w * w / (k - s * w * v).clamp(min=_LEAST)
        return self.begin[piece] + torch.minimum(t.clamp(min=0), self.length[piece])

    def _from_metres(self, t: Tensor) -> Tensor:
        w, v = self.denominator, self.fall
        return t * self._way.norm(dim=1) / (w * (w + t * v)).clamp(min=_LEAST)


def through_frustum(origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, matrix: Tensor) -> Pieces:
    """One piece a ray, from near to far (R,): `matrix` (4, 4) is `FrustumConfig.matrix`."""
    start = origins + near[:, None] * directions
    value = start @ matrix[:, :3].T + matrix[:, 3]
    slope = directions @ matrix[:, :3].T
    there = far > near
    w = value[:, 3].where(there, 1.0)
    v = slope[:, 3].where(there, 0.0)
    return Pieces(1, near, (far - near).clamp(min=0), value[:, :3], slope[:, :3], w, v)


def through_regions(origins: Tensor, directions: Tensor, far: Tensor) -> Pieces:
    """The pieces of rays (R, 3), in half sides of the inner cube from its middle, in the seven regions of
    `contraction.contract`, up to `far` (R,): 13 a ray, most of no length. Lengths count in half sides."""
    cuts = [(side - origins) / directions for side in (-1.0, 1.0)]  # faces of the cube and of what goes on
    for i, j in ((0, 1), (0, 2), (1, 2)):  # where two coordinates are equally large
        for sign in (1.0, -1.0):
            distance = origins[:, i] - sign * origins[:, j]
            cuts.append((-distance / (directions[:, i] - sign * directions[:, j]))[:, None])
    inner = torch.cat(cuts, 1).nan_to_num(0.0, 0.0, 0.0).clamp(min=0).minimum(far[:, None])
    zero = torch.zeros_like(far)[:, None]
    edges = torch.cat([zero, inner, far[:, None]], 1).sort(1).values
    per_ray = edges.shape[1] - 1
    begin, length = edges[:, :-1].flatten(), edges.diff(dim=1).flatten()
    o, d = (part.repeat_interleave(per_ray, 0) for part in (origins, directions))
    middle = o + (begin + length / 2)[:, None] * d
    axis = middle.abs().argmax(1, keepdim=True)
    sign = middle.gather(1, axis).sign()
    outer = middle.gather(1, axis).abs() > 1
    start = o + begin[:, None] * d
    chosen = torch.zeros_like(o, dtype=torch.bool).scatter(1, axis, True) & outer
    return Pieces(
        per_ray,
        begin,
        length,
        torch.where(chosen, 2 * start - sign, start),
        torch.where(chosen, 2 * d, d),
        (sign * start.gather(1, axis)).where(outer, 1.0)[:, 0].clamp(min=_LEAST),
        (sign * d.gather(1, axis)).where(outer, 0.0)[:, 0],
    )
