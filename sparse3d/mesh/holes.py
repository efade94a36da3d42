"""Holes closed with triangles: borders are followed, each is cut into triangles of least area in all
(Barequet and Sharir, "Filling gaps in the boundary of a polyhedron", 1995)."""

from dataclasses import replace

import numpy as np
from numba import njit

from sparse3d.geometry.mesh import Mesh

# The search takes edges^3 steps and edges^2 numbers: a tenth of a second. Longer borders get a fan.
_EXACT = 300


def with_holes_filled(mesh: Mesh, max_edges: int = 200) -> Mesh:
    """Borders of up to `max_edges` edges are closed, facing as their neighbours do. Those of up to 300 edges
    without a new vertex; longer ones by a fan around one in their middle, with their mean colour. Where
    borders touch in a vertex they are told apart; edges of more than two triangles are no borders. A texture
    becomes colours of vertices: what is new has no place in it."""
    loops = [loop for loop in borders(mesh) if len(loop) <= max_edges]
    if not loops:
        return mesh
    mesh = mesh.with_vertex_colors() if mesh.has_texture else mesh
    faces, middles, colors = [mesh.faces], [], []
    for loop in loops:
        if len(loop) <= _EXACT:
            triangles = _least_area(mesh.vertices[loop].astype(np.float64))
            faces.append(loop[triangles])
        else:
            middle = len(mesh.vertices) + len(middles)
            following = np.roll(loop, -1)
            faces.append(np.stack([loop, following, np.full_like(loop, middle)], 1))
            middles.append(mesh.vertices[loop].mean(0, dtype=np.float64))
            if mesh.colors is not None:
                colors.append(np.rint(mesh.colors[loop].mean(0)).astype(np.uint8))
    vertices = np.concatenate([mesh.vertices, np.array(middles, np.float32).reshape(-1, 3)])
    shades = mesh.colors
    if shades is not None and colors:
        shades = np.concatenate([shades, np.array(colors)])
    return replace(mesh, vertices=vertices, faces=np.concatenate(faces), colors=shades, uv=None)


def borders(mesh: Mesh) -> list[np.ndarray]:
    """Rows of vertices along each border, in the direction of triangles that would close it; shortest
    first."""
    directed = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    ends, counts = mesh.edges
    stride = max(len(mesh.vertices), 1)
    edge = np.searchsorted(ends @ [stride, 1], np.sort(directed, axis=1) @ [stride, 1])
    open_edges = directed[counts[edge] == 1][:, ::-1]
    following: dict[int, list[int]] = {}
    for tail, tip in open_edges[::-1].tolist():
        following.setdefault(tail, []).append(tip)
    loops = []
    for start in open_edges[:, 0].tolist():
        while following.get(start):
            loops += _loops_of_walk(_walk(following, start))
    return sorted(loops, key=len)


def _walk(following: dict[int, list[int]], start: int) -> list[int]:
    """Vertices from `start` on until there is no edge left that goes on; edges are used up."""
    walk = [start]
    while following.get(walk[-1]):
        walk.append(following[walk[-1]].pop())
    return walk


def _loops_of_walk(walk: list[int]) -> list[np.ndarray]:
    """A walk cut where it comes back to a vertex: closed loops of three vertices and more. What does not come
    back, beside triangles that are turned against each other, is left out."""
    loops, path, place = [], [], {}
    for vertex in walk:
        if vertex in place:
            begin = place[vertex]
            loop = path[begin:]
            for passed in loop:
                del place[passed]
            del path[begin:]
            if len(loop) >= 3:
                loops.append(np.array(loop, dtype=np.int64))
        place[vertex] = len(path)
        path.append(vertex)
    return loops


def _least_area(points: np.ndarray) -> np.ndarray:
    """(N, 3) a closed line -> (N - 2, 3) rows of it: triangles between its points of least area in all."""
    count = len(points)
    middle = _best_middles(points)
    triangles, waiting = [], [(0, count - 1)]
    while waiting:
        i, k = waiting.pop()
        if k - i < 2:
            continue
        m = int(middle[i, k])
        triangles.append((i, m, k))
        waiting += [(i, m), (m, k)]
    return np.array(triangles, dtype=np.int64)


@njit(cache=True, nogil=True)
def _best_middles(points: np.ndarray) -> np.ndarray:
    """(N, N): for the part of the line from i to k the point that the triangle on its chord has."""
    count = len(points)
    cost = np.zeros((count, count))
    middle = np.zeros((count, count), np.int64)
    for length in range(2, count):
        for i in range(count - length):
            k = i + length
            best = np.inf
            for m in range(i + 1, k):
                u, v = points[m] - points[i], points[k] - points[i]
                x = u[1] * v[2] - u[2] * v[1]
                y = u[2] * v[0] - u[0] * v[2]
                z = u[0] * v[1] - u[1] * v[0]
                total = cost[i, m] + cost[m, k] + np.sqrt(x * x + y * y + z * z)
                if total < best:
                    best = total
                    middle[i, k] = m
            cost[i, k] = best
    return middle
