"""What fields share that are evaluated at points: density, colour, renderings and losses from one network."""

import torch
from torch import Tensor, nn

from sparse3d.fields.protocol import Rendered, Traced
from sparse3d.fields.samplers import Drawn, SamplerConfig, of_samples, points_on
from sparse3d.fields.space import SpaceConfig
from sparse3d_ops.composite import Composite, composite


class SampledField(nn.Module):
    """A field that a subclass gives `raw_density` and `evaluate`, in positions of its space and densities per
    half side of the cube, at least 0. `stop` is the light below which a ray ends."""

    def __init__(self, space: SpaceConfig, sampler: SamplerConfig, stop: float):
        super().__init__()
        self.space, self.stop = space, stop
        self.sampler = sampler.build(space)

    def raw_density(self, unit: Tensor) -> Tensor:
        """(N, 3) in [-1, 1] -> (N,) per half side."""
        raise NotImplementedError

    def evaluate(self, unit: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) in [-1, 1], (N, 3) -> raw densities (N,), colours (N, 3)."""
        raise NotImplementedError

    def draw(self, origins: Tensor, directions: Tensor, offsets: Tensor) -> Drawn:
        """Samples of rays (R, 3), (R, 3) unit, jittered by `offsets` (R,)."""
        return self.sampler.draw(origins, directions, offsets)

    def density(self, points: Tensor) -> Tensor:
        """(N, 3) world -> (N,) in 1 / metre, 0 outside of the field."""
        unit, inside = self.space.to_unit(points)
        return self.raw_density(unit).where(inside, 0.0) / (self.space.side / 2)

    def color(self, points: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) world, (N, 3) unit viewing directions -> (N, 3) in [0, 1]."""
        return self.evaluate(self.space.to_unit(points)[0], directions)[1]

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        background: Tensor | None = None,
        *,
        offsets: Tensor | None = None,
        normals: bool = False,
    ) -> Rendered:
        """(R, 3), (R, 3) unit -> what rays see over `background`, (3,) or (R, 3), black where it is None.

        `offsets` (R,) in [0, 1) jitter the samples of each ray, the middle where None. With `normals`, also
        the mean of the negative gradients' directions.
        """
        offsets = torch.full_like(origins[:, 0], 0.5) if offsets is None else offsets
        drawn = self.draw(origins, directions, offsets)
        return rendered(self._composite(drawn, origins, directions, normals)[0], background)

    def trace(self, origins: Tensor, directions: Tensor, background: Tensor, offsets: Tensor) -> Traced:
        """See `RadianceField.trace`. Term: `proposal`, of a sampler that proposes."""
        drawn = self.draw(origins, directions, offsets)
        result, sigma = self._composite(drawn, origins, directions, False)
        terms = {}
        if drawn.proposals:
            terms["proposal"] = self.sampler.loss(drawn, result.weights)  # pyright: ignore[reportCallIssue]
        return Traced(rendered(result, background), drawn.samples, sigma, result.weights, terms)

    def advance(self, progress: float, step: int) -> None:
        """See `RadianceField.advance`."""
        for module in self.children():
            if module is not self.sampler and hasattr(module, "advance"):
                module.advance(progress)  # pyright: ignore[reportCallIssue]
        self.sampler.advance(self.density, progress, step)

    def _composite(
        self, drawn: Drawn, origins: Tensor, directions: Tensor, normals: bool
    ) -> tuple[Composite, Tensor]:
        samples = drawn.samples
        points = points_on(origins, directions, samples)
        unit, inside = self.space.to_unit(points)
        raw, shade = self.evaluate(unit, of_samples(directions, samples))
        sigma = raw.where(inside, 0.0) / (self.space.side / 2)
        values = [shade, samples.t[:, None]]
        if normals:
            values.append(self._normals(points))
        return composite(sigma, torch.cat(values, 1), samples.dt, samples.ray_starts, self.stop), sigma

    def _normals(self, points: Tensor) -> Tensor:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.density(points).sum(), points)
        return -nn.functional.normalize(slope, dim=1, eps=1e-12)


def rendered(result: Composite, background: Tensor | None) -> Rendered:
    """What rays see, from sums of colours, distance and, where there are more columns, normals."""
    color, opacity = result.out[:, :3], result.opacity
    if background is not None:
        color = color + (1 - opacity)[:, None] * background.to(color)
    depth = (result.out[:, 3] / opacity.clamp(min=1e-6)).where(opacity > 0, 0.0)
    return Rendered(color, opacity, depth, result.out[:, 4:] if result.out.shape[1] > 4 else None)
