"""Laws of the lists of tiles beyond the law suite."""

import pytest
import torch

from sparse3d_ops.splat_tiles import list_splats, tile_counts
from tests.ops.cases_splat_tiles import CASES

CPU = torch.device("cpu")


def places(name="many", dtype=torch.float32):
    torch.manual_seed(0)
    *splats, width, height = CASES[name](dtype, CPU)
    return splats, (width, height)


@pytest.mark.parametrize("name", ["many", "ties", "large"])
def test_every_list_is_front_to_back_and_the_lower_row_first(name):
    (means2d, reach, depths), size = places(name)
    tiles = list_splats(means2d, reach, depths, size)
    for begin, end in zip(tiles.starts, tiles.starts[1:], strict=False):
        here = tiles.splats[begin:end].tolist()
        assert here == sorted(here, key=lambda n: (float(depths[n]), n)) and len(set(here)) == len(here)


def test_slots_number_the_entries_of_a_splat_one_after_the_other():
    splats, size = places()
    tiles = list_splats(*splats, size)
    assert sorted(tiles.slots.tolist()) == list(range(len(tiles.splats)))
    assert tiles.offsets[0] == 0 and tiles.offsets[-1] == len(tiles.splats)
    owner = torch.repeat_interleave(torch.arange(len(splats[0])), tiles.offsets.diff())
    assert torch.equal(owner[tiles.slots].int(), tiles.splats)


def test_float64_depths_that_float32_cannot_tell_apart_are_in_order():
    depths = 1 + torch.arange(5, dtype=torch.float64).flip(0) * 1e-12
    middle, reach = torch.full((5, 2), 8.0).double(), torch.ones(5, 2).double()
    assert list_splats(middle, reach, depths, (16, 16)).splats.tolist() == [4, 3, 2, 1, 0]


def test_of_places_that_are_not_finite_nothing_is_listed_and_of_all_that_is_listed_all_tiles():
    nan, inf = torch.nan, torch.inf
    means2d = torch.tensor([[nan, 8], [8, nan], [inf, 8], [8, 8], [8, 8]])
    reach = torch.tensor([[1.0, 1], [1, 1], [1, 1], [inf, inf], [nan, 1]])
    tiles = list_splats(means2d, reach, torch.ones(5), (40, 40))
    assert tiles.splats.tolist() == [3] * 9
    assert tile_counts(40, 40) == (3, 3)


@pytest.mark.triton_bodies
@pytest.mark.parametrize("name", ["ties", "large"])
def test_lists_that_are_sorted_in_parts_are_the_same(name, monkeypatch):
    from sparse3d_ops.gpu import splat_tiles as body

    splats, size = places(name)
    want = list_splats(*splats, size)
    monkeypatch.setattr(body, "MOST_SORTED", 11)
    assert len(want.splats) > 33
    assert all(torch.equal(g, w) for g, w in zip(list_splats(*splats, size), want, strict=True))


def test_errors_say_what_came():
    (means2d, reach, depths), size = places()
    with pytest.raises(ValueError, match=r"reach has shape \(120,\), expected \(120, 2\)"):
        list_splats(means2d, reach[:, 0], depths, size)
    with pytest.raises(ValueError, match="depths is float64, expected float32"):
        list_splats(means2d, reach, depths.double(), size)
    with pytest.raises(ValueError, match="size is 0 x 9"):
        list_splats(means2d, reach, depths, (0, 9))
    for wrong in (0.0, -1.0, torch.nan):
        depths[0] = depths[7] = wrong  # splat 0 has no reach
        with pytest.raises(ValueError, match=r"depths\[7\] is .*, expected a distance above 0"):
            list_splats(means2d, reach, depths, size)
