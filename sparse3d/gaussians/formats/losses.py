"""What a format has changed: attribute by attribute, the root of the mean square and the largest
difference."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.repair import normalized


class Loss(NamedTuple):
    """Of an attribute, in its unit."""

    name: str
    unit: str
    rms: float
    most: float


UNITS = {
    "position": "m",
    "scale": "% of itself",
    "rotation": "degrees",
    "opacity": "of 1",
    "colour": "of 1",
    "harmonics": "coefficient",
}


def losses(before: Iterable[GaussianCloud], after: Iterable[GaussianCloud]) -> list[Loss]:
    """Differences between the same Gaussians in the same order, in blocks of any sizes. Scales are compared
    by their ratio, opacities and colours as they are drawn, harmonics up to the lower of the two
    degrees."""
    squares, most, counts = dict.fromkeys(UNITS, 0.0), dict.fromkeys(UNITS, 0.0), dict.fromkeys(UNITS, 0)
    for ours, theirs in _paired(iter(before), iter(after)):
        for name, difference in _differences(ours, theirs).items():
            if difference.numel():
                difference = difference.abs().double()
                squares[name] += float(difference.square().sum())
                most[name] = max(most[name], float(difference.max()))
                counts[name] += difference.numel()
    return [
        Loss(name, unit, (squares[name] / counts[name]) ** 0.5, most[name])
        for name, unit in UNITS.items()
        if counts[name]
    ]


def _differences(a: GaussianCloud, b: GaussianCloud) -> dict[str, Tensor]:
    scales = min(a.scales.shape[1], b.scales.shape[1])
    rest = min(a.shN.shape[1], b.shN.shape[1])
    return {
        "position": a.means - b.means,
        "scale": 100 * torch.expm1((b.scales[:, :scales] - a.scales[:, :scales]).double()),
        "rotation": _angles(a.quats, b.quats),
        "opacity": a.opacities.sigmoid() - b.opacities.sigmoid(),
        "colour": SH0 * (a.sh0 - b.sh0),
        "harmonics": a.shN[:, :rest] - b.shN[:, :rest],
    }


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between orientations of ellipsoids, which half a turn about an axis of theirs leaves as they
    are."""
    a, b = normalized(a)[0], normalized(b)[0]
    w, x, y, z = b.unbind(1)
    # b, and b after half a turn about its x, y and z: b times i, j and k.
    alike = torch.stack(
        [b, *(torch.stack(q, 1) for q in ((-x, w, z, -y), (-y, -z, w, x), (-z, y, -x, w)))], 1
    )
    # The chord is precise where the angle is small; q and -q are one rotation.
    chord = torch.minimum((a[:, None] - alike).norm(dim=2), (a[:, None] + alike).norm(dim=2)).amin(1)
    return torch.rad2deg(4 * torch.asin((chord / 2).clamp(max=1)))


def _paired(
    a: Iterator[GaussianCloud], b: Iterator[GaussianCloud]
) -> Iterator[tuple[GaussianCloud, GaussianCloud]]:
    """Both in blocks of the same rows. ValueError where one has more."""
    ours, theirs = next(a, None), next(b, None)
    while ours is not None and theirs is not None:
        rows = min(len(ours), len(theirs))
        yield ours[:rows], theirs[:rows]
        ours = ours[rows:] if rows < len(ours) else next(a, None)
        theirs = theirs[rows:] if rows < len(theirs) else next(b, None)
    if ours is not None or theirs is not None:
        raise ValueError("not the same number of Gaussians")
