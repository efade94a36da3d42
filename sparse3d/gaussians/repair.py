"""What files bring that cannot be drawn: found, counted and mended.

Opacities of +-inf are what a trainer's overflow leaves, and what formats with 8 bits of opacity give for 0
and 255. A scale of -inf is a standard deviation of 0. A Gaussian with a NaN anywhere, or with an infinity
where none has a meaning, has no place or no shape and is left out.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud

# sigmoid(10) is 0.99995: nearer to 0 or 1 than half a step of 8 bits, so that such formats keep it.
MOST_LOGIT = 10.0
# exp(-20) is 2e-9 m: flat for every picture, and its square is an ordinary float32.
LEAST_LOG_SCALE = -20.0
# A length that is further from 1 is told; one that is nearer is what float32 leaves of a product.
_UNIT = 1e-5


@dataclass(frozen=True)
class Repairs:
    """How many Gaussians had what. They add up over blocks."""

    left_out: int = 0  # a NaN, or an infinite mean, quaternion, colour or size
    infinite_opacities: int = 0  # cut to +-MOST_LOGIT
    zero_scales: int = 0  # one scale or more at exp(LEAST_LOG_SCALE) now
    zero_quats: int = 0  # no rotation now
    unnormalized_quats: int = 0  # of length 1 now

    def __add__(self, other: "Repairs") -> "Repairs":
        return Repairs(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def __str__(self) -> str:
        words = {
            "left_out": "left out for a NaN or an infinity",
            "infinite_opacities": "infinite opacities cut to 0.99995 or 0.00005",
            "zero_scales": "with a scale of zero, made 2e-9",
            "zero_quats": "quaternions of length 0, made no rotation",
            "unnormalized_quats": "quaternions brought to length 1",
        }
        found = [f"{getattr(self, name)} {text}" for name, text in words.items() if getattr(self, name)]
        return "; ".join(found) or "nothing to repair"


def repair(cloud: GaussianCloud) -> tuple[GaussianCloud, Repairs]:
    """A cloud of which every Gaussian can be drawn, and what was done to it; the same cloud where there was
    nothing to do. Surfels have no third scale, which is no fault."""
    usable = torch.ones(len(cloud), dtype=torch.bool, device=cloud.means.device)
    for tensor in (cloud.means, cloud.quats, cloud.sh0, cloud.shN):
        usable &= _all_of_row(tensor.isfinite())
    usable &= _all_of_row(cloud.scales < torch.inf) & ~cloud.opacities.isnan()
    left_out = len(cloud) - int(usable.sum())
    if left_out:
        cloud = cloud[usable]
    infinite = cloud.opacities.isinf()
    flat = ~_all_of_row(cloud.scales > -torch.inf)
    quats, zero, changed = normalized(cloud.quats)
    found = Repairs(left_out, *(int(mask.sum()) for mask in (infinite, flat, zero, changed)))
    if not found:
        return cloud, found
    parts = cloud.parameters()
    if found.infinite_opacities:
        parts["opacities"] = torch.where(
            infinite, cloud.opacities.clamp(-MOST_LOGIT, MOST_LOGIT), cloud.opacities
        )
    if found.zero_scales:
        parts["scales"] = torch.where(cloud.scales == -torch.inf, LEAST_LOG_SCALE, cloud.scales)
    if found.zero_quats or found.unnormalized_quats:
        parts["quats"] = torch.where((zero | changed)[:, None], quats, cloud.quats)
    return GaussianCloud.of(parts), found


def normalized(quats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 4) at length 1, those of length 0 as no rotation; which were of length 0, and which of others than
    1, (N,) bool."""
    largest = quats.abs().amax(1, keepdim=True)  # so that no square leaves the range of float32
    zero = largest[:, 0] == 0
    scaled = quats / torch.where(largest == 0, 1, largest)
    length = scaled.norm(dim=1, keepdim=True)
    identity = quats.new_tensor([1.0, 0.0, 0.0, 0.0])
    unit = torch.where(zero[:, None], identity, scaled / length.clamp(min=1))
    # `length` is at least 1 where there is any: the largest entry of a row is 1 by then.
    changed = ((length * largest)[:, 0] - 1).abs() > _UNIT
    return unit, zero, changed & ~zero


def _all_of_row(mask: Tensor) -> Tensor:
    return mask.flatten(1).all(1) if mask.dim() > 1 else mask
