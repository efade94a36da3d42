"""Laws of kernel maps beyond the law suite: the edge of the key, wrong tables, wrong geometry."""

import pytest
import torch

from sparse3d_ops.hashing import build, pack
from sparse3d_ops.kernel_map import kernel_map, strided_sites, submanifold_map, transposed_sites
from tests.ops.cases_voxels import GEOMETRIES, cloud

ONE = [1, 1, 1]
FAR = 131071


def sites_of(*rows):
    return torch.tensor(rows, dtype=torch.int32)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_two_tables_are_inverse_to_each_other(geometry):
    fine = cloud(60, (5, 5, 4), offset=-2)
    coarse = strided_sites(fine, *geometry, [])
    table, reverse = kernel_map(*build(pack(fine)), len(fine), coarse, *geometry)
    for forward, back in ((table, reverse), (reverse, table)):
        row, tap = (forward >= 0).nonzero().unbind(1)
        assert torch.equal(back[forward[row, tap].long(), tap].long(), row)
    assert (table >= 0).any(1).all()  # a strided site is one that an input reaches


def test_neighbours_across_the_edge_of_the_key_do_not_exist():
    # One past the largest index would carry into the next field of the key: z into y, y into x, x into batch.
    sites = sites_of([0, 0, 0, FAR], [0, 0, 1, -FAR - 1], [0, 0, FAR, 0], [0, 1, -FAR - 1, 0], [0, FAR, 0, 0])
    sites = torch.cat([sites, sites_of([1, -FAR - 1, 0, 0])])
    table, reverse = submanifold_map(*build(pack(sites)), sites, [3, 3, 3], ONE)
    assert (table >= 0).sum() == len(sites) and (reverse >= 0).sum() == len(sites)
    table, reverse = submanifold_map(*build(pack(sites)), sites, [2, 2, 2], ONE)
    assert (table >= 0).sum() == len(sites) and (reverse >= 0).sum() == len(sites)


def test_steps_far_beyond_the_key_reach_nothing_and_do_not_wrap():
    sites = cloud(8, (2, 2, 2), batches=1)
    for dilation in (1 << 18, 1 << 20, (1 << 31) - 1):
        table, _ = submanifold_map(*build(pack(sites)), sites, [3, 3, 3], [dilation] * 3)
        assert (table >= 0).sum() == len(sites)
        table, _ = kernel_map(
            *build(pack(sites)), len(sites), sites, ONE, [dilation] * 3, [dilation] * 3, [dilation] * 3
        )
        at = (sites[:, 1:] == 1).all(1).nonzero()[0, 0]  # stride * 1 - padding = 0: the origin, and only it
        origin = (sites[:, 1:] == 0).all(1).nonzero()[0, 0]
        assert table[at].item() == origin and (table >= 0).sum() == 1


def test_outputs_beyond_the_key_are_an_error_that_names_the_input():
    sites = sites_of([0, 0, 0, 0], [0, 0, 0, FAR])
    with pytest.raises(ValueError, match=r"coordinates\[1\] = \(0, 0, 0, 131071\) reaches an output outside"):
        strided_sites(sites, [3, 3, 3], ONE, ONE, ONE, [])
    with pytest.raises(ValueError, match=r"coordinates\[1\].*give the tensor a shape or shift its origin"):
        transposed_sites(sites, [2, 2, 2], [2, 2, 2], [0, 0, 0], ONE, [])
    inside = strided_sites(sites, [3, 3, 3], ONE, ONE, ONE, [5, 5, FAR + 1])
    assert inside[:, 3].max() == FAR


def test_a_table_of_other_voxels_is_refused_before_memory_is_touched():
    sites = cloud(40, (4, 4, 4))
    table = build(pack(sites))
    for kernel in ([3, 3, 3], [2, 2, 2]):
        with pytest.raises(ValueError, match=r"slot_rows\[\d+\] is \d+, expected a value in \[0, 7\)"):
            submanifold_map(*table, sites[:7], kernel, ONE)
    with pytest.raises(ValueError, match=r"slot_rows\[\d+\] is"):
        kernel_map(*table, 39, sites, [2, 2, 2], [2, 2, 2], [0, 0, 0], ONE)
    negative = table[1].clone()
    negative[0] = -3
    with pytest.raises(ValueError, match=r"slot_rows\[0\] is -3"):
        kernel_map(table[0], negative, 40, sites, [2, 2, 2], [2, 2, 2], [0, 0, 0], ONE)


@pytest.mark.parametrize("row", [[512, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0, FAR + 1]], ids=str)
def test_voxels_that_do_not_fit_the_key_are_named_by_every_map(row):
    good = sites_of([0, 0, 0, 0], [0, 0, 0, 1])
    table = build(pack(good))
    bad = sites_of([0, 0, 0, 0], row)
    geometry = ([2, 2, 2], [2, 2, 2], [0, 0, 0], ONE)
    for op, arguments in (
        (submanifold_map, (*table, bad, [3, 3, 3], ONE)),
        (kernel_map, (*table, 2, bad, *geometry)),
        (strided_sites, (bad, *geometry, [])),
        (transposed_sites, (bad, *geometry, [])),
    ):
        with pytest.raises(ValueError, match=r"coordinates\[1\].*does not fit the 64-bit key"):
            op(*arguments)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "shape", "message"),
    [
        ([0, 1, 1], ONE, [0, 0, 0], ONE, [], "kernel_size is"),
        (ONE, [1, 0, 1], [0, 0, 0], ONE, [], "stride is"),
        (ONE, ONE, [0, 0, -1], ONE, [], "padding is"),
        (ONE, ONE, [0, 0, 0], [1, 1], [], "dilation is"),
        (ONE, ONE, [0, 0, 0], [1, 1, 1 << 31], [], "dilation is"),
        (ONE, ONE, [0, 0, 0], ONE, [4, 4], "shape is"),
        (ONE, ONE, [0, 0, 0], ONE, [4, 4, -1], "shape is"),
    ],
)
def test_wrong_geometry_is_refused_with_what_came(kernel, stride, padding, dilation, shape, message):
    for op in (strided_sites, transposed_sites):
        with pytest.raises(ValueError, match=message):
            op(sites_of([0, 0, 0, 0]), kernel, stride, padding, dilation, shape)


def test_strided_coordinates_are_read_as_they_are():
    sites = cloud(30, (4, 4, 3))
    wide = torch.stack([sites, sites + 1], 2)[..., 0]
    table = build(pack(sites))
    for kernel in ([3, 3, 3], [2, 2, 2]):
        for got, want in zip(
            submanifold_map(*table, wide, kernel, ONE),
            submanifold_map(*table, sites, kernel, ONE),
            strict=True,
        ):
            assert torch.equal(got, want)
    geometry = GEOMETRIES["kernel3_stride2"]
    assert torch.equal(strided_sites(wide, *geometry, []), strided_sites(sites, *geometry, []))
