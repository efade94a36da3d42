"""A sphere of known density and colour in a cube, seen by rays, and training on it."""

import torch
from torch.nn.functional import normalize

RADIUS, SIGMA = 0.5, 12.0  # metres, 1 / metre


def rays(count, generator=None):
    """Rays from all around that come near the middle: origins and unit directions (count, 3)."""
    origins = 2 * normalize(torch.randn(count, 3, generator=generator), dim=1)
    aims = (torch.rand(count, 3, generator=generator) * 2 - 1) * 0.6
    return origins, normalize(aims - origins, dim=1)


def entries(origins, directions):
    """Where rays enter and leave the sphere, metres; equal for those that miss."""
    middle = -(origins * directions).sum(1)
    half = (RADIUS**2 - (origins + middle[:, None] * directions).square().sum(1)).clamp(min=0).sqrt()
    return middle - half, middle + half


def paint(points):
    """Colours of places, smooth."""
    return 0.5 + 0.4 * torch.sin(4 * points + torch.tensor([0.0, 1.0, 2.0], dtype=points.dtype))


def colors(origins, directions, background, count=256):
    """What the rays see, by many samples: (R, 3), and opacity (R,)."""
    near, far = entries(origins, directions)
    edges = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, count + 1)
    t = (edges[:, 1:] + edges[:, :-1]) / 2
    points = origins[:, None] + t[..., None] * directions[:, None]
    through = torch.exp(-SIGMA * (edges - near[:, None]))
    weights = -through.diff(dim=1)
    opacity = -torch.expm1(-SIGMA * (far - near))
    seen = (weights[..., None] * paint(points)).sum(1)
    return seen + (1 - opacity)[:, None] * background, opacity


def fit(field, steps, rate, count=512, seed=0):
    """Train on random rays; returns the mean squared error of the colours of rays not seen before."""
    torch.manual_seed(seed)
    background = torch.ones(3)
    optimizer = torch.optim.Adam(field.parameters(), rate, eps=1e-15)
    for step in range(steps):
        field.advance(step / steps, step)
        origins, directions = rays(count)
        traced = field.trace(origins, directions, background, torch.rand(count))
        wanted, _ = colors(origins, directions, background)
        loss = (traced.seen.color - wanted).square().sum(1).mean() + sum(traced.terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        origins, directions = rays(500)
        wanted, opacity = colors(origins, directions, background)
        seen = field.render(origins, directions, background)
    return float((seen.color - wanted).square().mean()), float((seen.opacity - opacity).abs().mean())
