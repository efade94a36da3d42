"""Marching cubes over blocks by walking through the cells of one big grid, with a dictionary of edges."""

import torch

from sparse3d_ops import marching_cubes_table as table


def extract_blocks(values, neighbours, level, weights=None, min_weight=0.0):
    blocks, *size = values.shape

    def point(b, *place):
        over = [place[a] >= size[a] for a in range(3)]
        b = int(neighbours[b, 4 * over[0] + 2 * over[1] + over[2]])
        return None if b < 0 else (b, *(place[a] - size[a] * over[a] for a in range(3)))

    def known(p):
        return p is not None and values[p] == values[p] and (weights is None or weights[p] >= min_weight)

    def number(p):
        return ((p[0] * size[0] + p[1]) * size[1] + p[2]) * size[2] + p[3]

    triangles, edges = [], {}
    for b in range(blocks):
        for x in range(size[0]):
            for y in range(size[1]):
                for z in range(size[2]):
                    corners = [point(b, x + (k >> 2), y + (k >> 1 & 1), z + (k & 1)) for k in range(8)]
                    if not all(known(p) for p in corners):
                        continue
                    case = sum(1 << k for k in range(8) if values[corners[k]] > level)
                    for triangle in table.triangles()[case]:
                        if triangle[0] < 0:
                            continue
                        face = []
                        for e in triangle:
                            low, high = (number(corners[end[e]]) for end in (table.BASE, table.TIP))
                            face.append((low, int(table.AXIS[e])))
                            edges[face[-1]] = high
                        triangles.append(face)
    order = sorted(edges)
    rows = {edge: n for n, edge in enumerate(order)}
    low = torch.tensor([edge[0] for edge in order], dtype=torch.int64)
    high = torch.tensor([edges[edge] for edge in order], dtype=torch.int64)
    faces = torch.tensor([[rows[edge] for edge in face] for face in triangles], dtype=torch.int64)
    return low, high, faces.reshape(-1, 3)
