"""Laws of keys and hash tables beyond the law suite: order, free slots, and what they refuse."""

import pytest
import torch

from sparse3d_ops.hashing import build, check_table, look_up, pack, table_size, unique, unpack
from tests.ops.cases_voxels import BORDER, cloud


def test_keys_sort_as_coordinates_do():
    sites = torch.cat([BORDER, cloud(50, (5, 5, 5), offset=-2)])
    by_key = sites[pack(sites).argsort()].tolist()
    assert by_key == sorted(sites.tolist())


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 9, 1000, 1024, 1025, (1 << 31) - 1])
def test_a_table_is_a_power_of_two_and_at_most_half_full(count):
    slots = table_size(count)
    assert slots & (slots - 1) == 0 and slots >= 8 and 2 * count <= slots <= max(8, 4 * count)


def test_a_full_neighbourhood_of_slots_is_walked_to_its_end():
    # Half full tables of many sizes: probing wraps around the end of the table in some of them.
    for count in range(1, 40):
        keys = pack(cloud(count, (4, 4, 4)))
        assert look_up(*build(keys), keys).tolist() == list(range(count))


@pytest.mark.parametrize("extent", [(300, 200, 2), (2, 2, 2)])
def test_sets_of_many_keys_sorted_in_several_chunks_are_those_of_torch(extent):
    keys = pack(cloud(60_000, extent, offset=-100))
    keys = keys[torch.randint(0, len(keys), (60_000,))]
    for got, want in zip(
        unique(keys), torch.unique(keys, return_inverse=True, return_counts=True), strict=True
    ):
        assert torch.equal(got, want)


def test_a_set_that_spans_all_keys_is_sorted_too():
    keys = pack(BORDER.flip(0))
    assert unpack(unique(torch.cat([keys, keys]))[0]).tolist() == sorted(BORDER.tolist())
    assert unique(torch.cat([keys, keys]))[2].tolist() == [2] * len(BORDER)


def test_strided_input_is_read_as_it_is():
    sites = cloud(30, (4, 4, 4))
    wide = torch.stack([sites, sites + 1], 2)[..., 0]
    assert not wide.is_contiguous() and torch.equal(pack(wide), pack(sites))
    keys = pack(sites)
    every_second = torch.stack([keys, keys.flip(0)], 1)[:, 0]
    assert not every_second.is_contiguous()
    assert torch.equal(unpack(every_second), sites)
    table = build(every_second)
    assert torch.equal(look_up(*table, every_second), torch.arange(30, dtype=torch.int32))
    for got, want in zip(unique(every_second), unique(keys), strict=True):
        assert torch.equal(got, want)
    expanded = keys[:1].expand(5)
    assert unique(expanded)[2].tolist() == [5]


@pytest.mark.parametrize(
    "row",
    [[-1, 0, 0, 0], [512, 0, 0, 0], [0, 131072, 0, 0], [0, 0, -131073, 0], [0, 0, 0, -(1 << 31)]],
    ids=str,
)
def test_a_voxel_outside_of_the_key_is_named(row):
    sites = torch.tensor([[0, 0, 0, 0], row, row], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"coordinates\[1\] = .*does not fit the 64-bit key"):
        pack(sites)


def test_zero_is_nobodys_key_and_found_nowhere():
    keys = pack(cloud(20, (4, 4, 4)))
    assert look_up(*build(keys), torch.tensor([0, 7])).tolist() == [-1, -1]
    for op in (build, unique, unpack):
        with pytest.raises(ValueError, match=r"keys\[20\] is 0"):
            op(torch.cat([keys, torch.zeros(1, dtype=torch.int64)]))


def test_repeated_voxels_are_named():
    keys = pack(torch.tensor([[0, 1, 2, 3], [1, -4, 5, 6], [1, -4, 5, 6], [0, 1, 2, 3]], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"coordinates\[2\] = \(1, -4, 5, 6\) repeats coordinates\[1\]"):
        build(keys)


def test_what_is_not_a_table_is_refused_and_not_searched_without_end():
    slot_keys, slot_rows = build(pack(cloud(20, (4, 4, 4))))
    query = pack(cloud(3, (4, 4, 4)))
    full = slot_keys.clone().fill_(-5)
    for keys, rows, message in (
        (full, slot_rows, "free slots"),
        (slot_keys.abs(), slot_rows, "free slots"),
        (slot_keys[:12], slot_rows[:12], "power of two"),
        (slot_keys, slot_rows[:8], "slot_rows has shape"),
        (slot_keys, slot_rows.long(), "slot_rows is int64"),
    ):
        with pytest.raises(ValueError, match=message):
            look_up(keys, rows, query)
    with pytest.raises(ValueError, match=r"slot_rows\[\d+\] is 19, expected a value in \[0, 19\)"):
        check_table(slot_keys, slot_rows, 19)
