"""Axes of files: which way x, y and z point, and what changes with them.

Three letters name where x, y and z point for somebody who looks at the scene: Right or Left, Up or Down,
Front or Back (the names of the SPZ library). A change between two of them flips the signs of some axes: of
positions, of quaternions, whose rotation R becomes F R F with F the flips, and of the harmonics, each of
which is even or odd in each axis. An odd number of flips is a mirror; it does the same.

Files that were trained from COLMAP's cameras are RDF, which is what clouds are taken to be: `WORLD`.
"""

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud

WORLD = "RDF"
AXES = tuple(x + y + z for x in "RL" for y in "UD" for z in "FB")


def check_axes(axes: str) -> None:
    """ValueError for what names no axes."""
    if axes not in AXES:
        raise ValueError(f"{axes!r} names no axes; there are {', '.join(AXES)} (RDF: right, down, front)")


def flips(from_axes: str, to_axes: str) -> tuple[int, int, int]:
    """+1 or -1 for x, y and z."""
    check_axes(from_axes)
    check_axes(to_axes)
    x, y, z = (1 if a == b else -1 for a, b in zip(from_axes, to_axes, strict=True))
    return x, y, z


def change_axes(cloud: GaussianCloud, from_axes: str, to_axes: str) -> GaussianCloud:
    """The same Gaussians, with numbers for other axes."""
    signs = flips(from_axes, to_axes)
    if signs == (1, 1, 1):
        return cloud
    x, y, z = signs
    like = cloud.means
    parts = cloud.parameters()
    parts["means"] = cloud.means * like.new_tensor(signs)
    parts["quats"] = cloud.quats * like.new_tensor([1, y * z, x * z, x * y])
    parts["shN"] = cloud.shN * harmonic_signs(cloud.sh_degree, signs).to(like)[:, None]
    return GaussianCloud.of(parts)


def harmonic_signs(degree: int, signs: tuple[int, int, int]) -> Tensor:
    """(K - 1,) float: what each harmonic but the first is multiplied with when axes are flipped.

    Y_lm is proportional to P_l^|m|(z) times cos(m phi) for m >= 0 or sin(|m| phi) for m < 0. z -> -z gives
    (-1)^(l+m); y -> -y is phi -> -phi; x -> -x is phi -> pi - phi.
    """
    x, y, z = (sign < 0 for sign in signs)
    out = []
    for l in range(1, degree + 1):
        for m in range(-l, l + 1):
            odd = z * (l + m) + y * (m < 0) + x * (m + (m < 0))
            out.append(1.0 - 2.0 * (odd % 2))
    return torch.tensor(out)
