"""What every radiance field can do, and what a rendering holds.

World coordinates are right-handed, metres; rays are origins (R, 3) and unit directions (R, 3). Densities are
in 1 / metre: the light that passes a length d of density sigma is exp(-sigma d).
"""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from sparse3d_ops.raymarch import Samples


class Rendered(NamedTuple):
    """R rays: `color` (R, 3) in [0, 1] over the background, `opacity` (R,) in [0, 1], `depth` (R,) metres
    along the ray, the mean over what the ray sees (0 where it sees nothing), and `normal` (R, 3), world, of
    length `opacity` or less."""

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor | None = None


class Traced(NamedTuple):
    """A rendering to learn from: what was `seen` of R rays, the packed `samples` that it was made of
    (metres), and for each of them `sigma` (S,) 1 / metre and `weights` (S,), its part of the ray's colour.
    `terms` are scalars that the field adds to the loss of its colours, weighted already."""

    seen: Rendered
    samples: Samples
    sigma: Tensor
    weights: Tensor
    terms: dict[str, Tensor]


@runtime_checkable
class RadianceField(Protocol):
    """Density and colour everywhere, and pictures of them."""

    def density(self, points: Tensor) -> Tensor:
        """(N, 3) world -> (N,) in 1 / metre, 0 outside of the field."""
        ...

    def color(self, points: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) world, (N, 3) unit viewing directions -> (N, 3) in [0, 1]."""
        ...

    def render(self, origins: Tensor, directions: Tensor, background: Tensor | None = None) -> Rendered:
        """(R, 3), (R, 3), and a colour (3,) or (R, 3) behind everything, black where it is None."""
        ...

    def trace(self, origins: Tensor, directions: Tensor, background: Tensor, offsets: Tensor) -> Traced:
        """As `render`, for a step of a training; `offsets` (R,) in [0, 1) jitter the samples of each ray."""
        ...

    def advance(self, progress: float, step: int) -> None:
        """To be called before each step of a training, `progress` in [0, 1) of it: masks of encodings and
        samplers follow."""
        ...
