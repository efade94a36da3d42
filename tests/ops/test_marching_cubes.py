"""Marching cubes over blocks: cutting a grid into blocks changes nothing, and what is wrong is refused."""

import pytest
import torch

from sparse3d.geometry.level_set import level_set
from sparse3d_ops.marching_cubes import dense_neighbours, extract_blocks
from sparse3d_ops.visible_samples import lattice
from tests.ops.cases_marching_cubes import blocks_of


def soup(ends, faces):
    """Triangles as a set of three lattice edges each, whatever their numbers are."""
    corners = torch.stack(ends, 1)[faces]
    found = set()
    for triangle in corners.tolist():
        first = min(range(3), key=lambda k: triangle[k])
        found.add(tuple(tuple(triangle[(first + k) % 3]) for k in range(3)))
    return found


def grid(size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_blocks_have_the_surface_of_the_whole():
    values = grid((8, 6, 8))
    low, high, faces = extract_blocks(values[None], dense_neighbours(), 0.1)
    numbers = torch.arange(values.numel()).reshape(values.shape)
    cut, near = blocks_of(values, (4, 3, 2))
    original = blocks_of(numbers, (4, 3, 2))[0].flatten()
    pieces = extract_blocks(cut, near, 0.1)
    assert soup((low, high), faces) == soup([original[x] for x in pieces[:2]], pieces[2])
    assert len(pieces[0]) == len(low), "shared between blocks"


def test_a_list_of_voxels_has_the_same_surface():
    values = grid((6, 6, 6), 4)
    low, high, faces = extract_blocks(values[None], dense_neighbours(), 0.0)
    axis = torch.arange(5, dtype=torch.int32)
    points, rows = lattice(torch.cartesian_prod(torch.zeros(1, dtype=torch.int32), axis, axis, axis))
    where = (points[:, 1:].long() * torch.tensor([36, 6, 1])).sum(1)
    other = level_set(rows, values.flatten()[where])
    assert soup((low, high), faces) == soup((where[other.low], where[other.high]), other.faces)


def test_what_is_wrong_is_refused():
    values, near = grid((1, 2, 2, 2)), dense_neighbours()
    with pytest.raises(ValueError, match="expected a value in"):
        extract_blocks(values, torch.tensor([[0, 1, *[-1] * 6]]), 0.0)
    with pytest.raises(ValueError, match="column 0 of neighbours"):
        extract_blocks(values.repeat(2, 1, 1, 1), torch.tensor([[1, *[-1] * 7], [0, *[-1] * 7]]), 0.0)
    with pytest.raises(ValueError, match="weights has shape"):
        extract_blocks(values, near, 0.0, values[:, :1], 1.0)
    with pytest.raises(ValueError, match="at most 21845 along z"):
        extract_blocks(torch.zeros(1, 1, 1, 21846), near, 0.0)
