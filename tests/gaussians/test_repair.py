"""What cannot be drawn is found, counted and mended, and nothing else is touched."""

import torch

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.repair import LEAST_LOG_SCALE, MOST_LOGIT, Repairs, normalized, repair
from tests.gaussians.splat_files import assert_same, some_cloud

INF, NAN = float("inf"), float("nan")


def with_values(cloud, **values):
    """`means=(row, value)`: that value somewhere in that row."""
    parts = {name: tensor.clone() for name, tensor in cloud.parameters().items()}
    for name, (row, value) in values.items():
        parts[name][row].view(-1)[-1] = value
    return GaussianCloud.of(parts)


def test_a_good_cloud_is_left_as_it_is():
    cloud = some_cloud(30)
    mended, found = repair(cloud)
    assert mended is cloud and found == Repairs() and not found and str(found) == "nothing to repair"


def test_rows_with_what_has_no_meaning_are_left_out():
    cloud = some_cloud(12)
    bad = with_values(cloud, means=(1, NAN), scales=(3, INF), quats=(4, NAN), opacities=(6, NAN))
    bad = with_values(bad, sh0=(7, -INF), shN=(9, NAN))
    mended, found = repair(bad)
    assert found == Repairs(left_out=6)
    assert_same(mended, cloud[torch.tensor([0, 2, 5, 8, 10, 11])])
    assert repair(with_values(cloud, means=(1, INF)))[1] == Repairs(left_out=1)
    assert repair(with_values(cloud, scales=(1, NAN)))[1] == Repairs(left_out=1)


def test_infinite_opacities_are_cut():
    cloud = some_cloud(5)
    mended, found = repair(with_values(with_values(cloud, opacities=(1, INF)), opacities=(3, -INF)))
    assert found == Repairs(infinite_opacities=2)
    assert mended.opacities[[1, 3]].tolist() == [MOST_LOGIT, -MOST_LOGIT]
    keep = torch.tensor([0, 2, 4])
    assert_same(mended[keep], cloud[keep])
    assert round(float(torch.tensor(MOST_LOGIT).sigmoid()) * 255) == 255, "8 bits keep it"


def test_a_size_of_zero_is_small_instead():
    for cloud in (some_cloud(5), some_cloud(5, surfels=True)):
        mended, found = repair(with_values(cloud, scales=(2, -INF)))
        assert found == Repairs(zero_scales=1) and mended.scales[2, -1] == LEAST_LOG_SCALE
        assert torch.equal(mended.scales[2, :-1], cloud.scales[2, :-1])


def test_quaternions_get_length_one_whatever_it_was():
    unit = some_cloud(6).quats
    lengths = torch.tensor([1e-30, 1e-3, 1.0, 2.0, 1e20, 3e37])
    mended, zero, changed = normalized(unit * lengths[:, None])
    torch.testing.assert_close(mended, unit)
    assert changed.tolist() == [True, True, False, True, True, True] and not zero.any()
    cloud = GaussianCloud.of({**some_cloud(6).parameters(), "quats": unit * lengths[:, None]})
    cloud.quats[1] = 0
    whole, found = repair(cloud)
    assert found == Repairs(zero_quats=1, unnormalized_quats=4)
    assert whole.quats[1].tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(whole.quats.norm(dim=1), torch.ones(6))


def test_counts_add_up_over_blocks():
    cloud = with_values(with_values(some_cloud(9), opacities=(1, INF)), means=(7, NAN))
    parts = sum((repair(part)[1] for part in (cloud[:4], cloud[4:])), Repairs())
    assert parts == repair(cloud)[1]
    assert "1 left out" in str(parts) and "1 infinite opacities" in str(parts)
