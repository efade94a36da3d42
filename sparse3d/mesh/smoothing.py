"""Less noise on the same surface, without shrinking: Taubin, "A signal processing approach to fair surface
design", SIGGRAPH 1995."""

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from sparse3d.geometry.mesh import Mesh


def smoothed(mesh: Mesh, steps: int = 10, part: float = 0.5, pass_band: float = 0.1) -> Mesh:
    """Each step moves vertices towards the mean of their neighbours by `part` of the way (lambda, 0 to 1),
    then away from it by mu: 1 / lambda + 1 / mu = `pass_band`, so that waves longer than those of that
    frequency stay. A vertex on an open border follows its neighbours along the border alone; vertices without
    a triangle stay. ValueError for others."""
    if steps < 0 or not 0 < part <= 1 or not 0 < pass_band < 1:
        raise ValueError(f"steps {steps}, part {part} in (0, 1] and pass_band {pass_band} in (0, 1)")
    away = 1 / (pass_band - 1 / part)
    mean, alone = _means(mesh)
    low = mesh.vertices.min(0, initial=np.inf).astype(np.float64)
    places = mesh.vertices - low
    for _ in range(steps):
        for way in (part, away):
            step = mean @ places - places
            step[alone] = 0
            places = places + way * step
    return replace(mesh, vertices=places + low)


def _means(mesh: Mesh) -> tuple[csr_array, np.ndarray]:
    """(V, V) weights of each vertex's neighbours, and which (V,) have none."""
    ends, counts = mesh.edges
    count = len(mesh.vertices)
    border = np.zeros(count, dtype=bool)
    border[ends[counts == 1]] = True
    rows = np.concatenate([ends, ends[:, ::-1]])
    # What a border vertex follows: neighbours at the other end of an edge that has one triangle.
    follows = ~border[rows[:, 0]] | np.tile(counts == 1, 2)
    rows = rows[follows]
    degree = np.bincount(rows[:, 0], minlength=count)
    weights = 1 / np.maximum(degree, 1)[rows[:, 0]]
    return csr_array((weights, (rows[:, 0], rows[:, 1])), shape=(count, count)), degree == 0
