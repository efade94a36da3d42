"""Meshes of shapes that are known exactly."""

import numpy as np

from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.mesh import joined as joined_meshes


def box(low=(-1.0, -0.5, -0.25), high=(1.0, 0.5, 0.25)) -> Mesh:
    """12 triangles; vertex 4 x + 2 y + z is a corner."""
    ends = np.array([low, high])
    vertices = [[ends[x, 0], ends[y, 1], ends[z, 2]] for x in range(2) for y in range(2) for z in range(2)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return Mesh(np.array(vertices), np.array(faces))


def icosphere(radius=1.0, middle=(0.0, 0.0, 0.0), rounds=3) -> Mesh:
    """An icosahedron, each triangle cut in four `rounds` times; 20 * 4^rounds triangles."""
    g = (1 + 5**0.5) / 2
    corners = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    corners += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    faces = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4)]
    faces += [(11, 10, 2), (10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9)]
    faces += [(4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)]
    points, triangles = [np.array(c) / np.linalg.norm(c) for c in corners], faces
    for _ in range(rounds):
        halves, cut = {}, []

        def half(a, b, halves=halves):
            key = min(a, b), max(a, b)
            if key not in halves:
                middle = points[a] + points[b]
                points.append(middle / np.linalg.norm(middle))
                halves[key] = len(points) - 1
            return halves[key]

        for a, b, c in triangles:
            d, e, f = half(a, b), half(b, c), half(c, a)
            cut += [(a, d, f), (d, b, e), (f, e, c), (d, e, f)]
        triangles = cut
    return Mesh(np.array(points) * radius + middle, np.array(triangles))


def hemisphere(radius=1.0, rounds=4) -> Mesh:
    """The upper part of an icosphere, open below."""
    mesh = icosphere(radius, rounds=rounds)
    return mesh.select(mesh.vertices[mesh.faces][:, :, 2].min(1) > -1e-6)


def joined(*meshes: Mesh) -> Mesh:
    """One mesh of several, which stay apart."""
    return joined_meshes(meshes)


def turned(mesh: Mesh) -> Mesh:
    """With its inside out."""
    return Mesh(mesh.vertices, mesh.faces[:, ::-1])


def box_distance(points, low=(-1.0, -0.5, -0.25), high=(1.0, 0.5, 0.25)):
    """Signed distance of (N, 3) from the box."""
    low, high = np.array(low), np.array(high)
    out = np.abs(points - (low + high) / 2) - (high - low) / 2
    return np.linalg.norm(out.clip(min=0), axis=1) + out.max(1).clip(max=0)
