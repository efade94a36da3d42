"""The lists of tiles by their definition: every tile asks every splat."""

import math

import torch

TILE = 16


def tile_lists(means2d, reach, depths, width, height):
    across, down = -(-width // TILE), -(-height // TILE)
    met = {}  # splat: tiles, row after row

    def meets(n, axis, tile):
        low, high = float(means2d[n, axis] - reach[n, axis]), float(means2d[n, axis] + reach[n, axis])
        return math.floor(low / TILE) <= tile <= math.floor(high / TILE)

    for n in range(len(means2d)):
        met[n] = [
            y * across + x
            for y in range(down)
            for x in range(across)
            if reach[n, 0] > 0 and meets(n, 0, x) and meets(n, 1, y)
        ]
    offsets = [0]
    for n in range(len(means2d)):
        offsets.append(offsets[-1] + len(met[n]))
    front_to_back = sorted(range(len(means2d)), key=lambda n: (float(depths[n]), n))
    starts, splats, slots = [0], [], []
    for tile in range(across * down):
        here = [n for n in front_to_back if tile in met[n]]
        splats += here
        slots += [offsets[n] + met[n].index(tile) for n in here]
        starts.append(len(splats))
    return (
        torch.tensor(starts),
        torch.tensor(splats, dtype=torch.int32),
        torch.tensor(slots, dtype=torch.int64),
        torch.tensor(offsets),
    )
