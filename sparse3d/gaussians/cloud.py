"""A cloud of Gaussians: ellipsoids of colour that are drawn front to back.

    mean        centre, world, metres
    scales      natural logarithm of the standard deviations along the Gaussian's own axes, metres
    quats       rotation from its own axes to the world's, (w, x, y, z), of any length but 0
    opacities   logit of the opacity at the centre
    sh0, shN    coefficients of real spherical harmonics (`sparse3d_ops.spherical_harmonics`); colour = 0.5 +
                their sum in the direction from the camera to the mean

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", arXiv 2308.04079; surfels, which
have two scales and lie in the plane of their first two axes: Huang et al., "2D Gaussian Splatting for
Geometrically Accurate Radiance Fields", arXiv 2403.17888. Names of the parameters are gsplat's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import Tensor

MAX_SH_DEGREE = 4
# The value of the harmonic of degree 0: colour = 0.5 + SH0 * sh0.
SH0 = 0.28209479177387814


@dataclass(frozen=True, eq=False)
class GaussianCloud:
    """N Gaussians: means (N, 3), scales (N, 3) or (N, 2) for surfels, quats (N, 4), opacities (N,), sh0
    (N, 1, 3), shN (N, (degree + 1)^2 - 1, 3); all of one dtype and on one device.

    ValueError for shapes that do not belong together. Values are not looked at: `sparse3d.gaussians.repair`
    counts and mends what files bring.
    """

    means: Tensor
    scales: Tensor
    quats: Tensor
    opacities: Tensor
    sh0: Tensor
    shN: Tensor

    def __post_init__(self):
        count = len(self.means) if self.means.dim() else 0
        expected = {
            "means": ((count, 3),),
            "scales": ((count, 3), (count, 2)),
            "quats": ((count, 4),),
            "opacities": ((count,),),
            "sh0": ((count, 1, 3),),
            "shN": tuple((count, (d + 1) ** 2 - 1, 3) for d in range(MAX_SH_DEGREE + 1)),
        }
        for name, shapes in expected.items():
            tensor = getattr(self, name)
            if tuple(tensor.shape) not in shapes:
                wanted = " or ".join(str(shape) for shape in shapes)
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {wanted}")
            if tensor.dtype != self.means.dtype or tensor.device != self.means.device:
                raise ValueError(
                    f"{name} is {tensor.dtype} on {tensor.device}, means are {self.means.dtype} on "
                    f"{self.means.device}; they must agree"
                )

    def __len__(self) -> int:
        return len(self.means)

    @property
    def surfels(self) -> bool:
        """Whether these are flat."""
        return self.scales.shape[1] == 2

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self.shN.shape[1] + 1) - 1

    def parameters(self) -> dict[str, Tensor]:
        """By name, as gsplat keys them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def of(parameters: Mapping[str, Tensor]) -> "GaussianCloud":
        """From a mapping with those keys; others are left out. KeyError for one that is missing."""
        return GaussianCloud(**{field.name: parameters[field.name] for field in fields(GaussianCloud)})

    def to(self, *args, **kwargs) -> "GaussianCloud":
        """As `torch.Tensor.to`, of every part."""
        return GaussianCloud.of({k: v.to(*args, **kwargs) for k, v in self.parameters().items()})

    def __getitem__(self, rows: Tensor | slice) -> "GaussianCloud":
        """The Gaussians of a mask (N,), of indices (K,) or of a slice."""
        return GaussianCloud.of({k: v[rows] for k, v in self.parameters().items()})
