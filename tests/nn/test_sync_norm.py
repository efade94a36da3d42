"""Batch norm over ranks with different numbers of voxels is batch norm over all of them in one process."""

import pytest
import torch
from torch.nn import functional as F

from sparse3d import nn
from sparse3d.nn.collectives import mean_over_ranks
from sparse3d.tensor import SparseTensor
from tests.two_ranks import on_two_ranks

SHARES = {
    "uneven": (7, 2),
    "one voxel": (1, 8),
    "none on one": (0, 9),
    "one voxel in all": (0, 1),
    "none": (0, 0),
}


def values(count: int):
    """Features far from zero (where E[x^2] - E[x]^2 fails), and weights of the loss."""
    generator = torch.Generator().manual_seed(count)
    features, weights = torch.randn(2, count, 3, dtype=torch.float64, generator=generator)
    return (1e4 + features).requires_grad_(), weights


def layer():
    norm = nn.SyncBatchNorm(3).double()
    torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    return norm


def normalised(rows: slice, count: int):
    features, weights = values(count)
    norm = layer()
    own = features[rows]
    coordinates = (
        torch.arange(4 * len(own), dtype=torch.int32).reshape(-1, 4) * torch.tensor([0, 1, 1, 1]).int()
    )
    out = norm(SparseTensor(own, coordinates, batch_size=1)).features
    (out * weights[rows]).sum().backward()
    return {
        "out": out.detach(),
        "grad": features.grad[rows],
        "weight": norm.weight.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
        "seen": norm.num_batches_tracked,
    }


def both(rank):
    found = {}
    for name, (first, second) in SHARES.items():
        rows = slice(0, first) if rank == 0 else slice(first, first + second)
        found |= {f"{name}.{key}": value for key, value in normalised(rows, first + second).items()}
    # The mean over ranks of a rank's share, whatever each of them counts.
    for name, counts in {"both": (3, 1), "one": (0, 5), "nobody": (0, 0)}.items():
        total = torch.tensor(float(sum(range(counts[rank]))), dtype=torch.float64)
        found[f"mean {name}"] = mean_over_ranks(total, counts[rank])
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_two_ranks(both, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_two_ranks_are_one_batch(ranks, name):
    count = sum(SHARES[name])
    features, weights = values(count)
    norm = layer()
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    if count > 1:
        want = F.batch_norm(features, mean, var, norm.weight, norm.bias, True, 0.1, norm.eps)
        (want * weights).sum().backward()
    for key in ("out", "grad"):
        joined = torch.cat([rank[f"{name}.{key}"] for rank in ranks])
        assert joined.shape == (count, 3) and joined.isfinite().all()
        if count > 1:
            # 1e4 away from zero float64 leaves twelve digits of the deviations.
            torch.testing.assert_close(
                joined, want.detach() if key == "out" else features.grad, rtol=1e-9, atol=1e-9
            )
    if count > 1:
        total = ranks[0][f"{name}.weight"] + ranks[1][f"{name}.weight"]
        torch.testing.assert_close(total, norm.weight.grad, rtol=1e-9, atol=1e-9)
    for rank in ranks:
        torch.testing.assert_close(rank[f"{name}.mean"], mean)
        torch.testing.assert_close(rank[f"{name}.var"], var)
        assert rank[f"{name}.seen"] == (count > 1), "statistics of fewer than two voxels are not taken"


@pytest.mark.slow
def test_the_mean_of_the_shares_is_the_mean_of_all(ranks):
    for name, want in {"both": 3 / 4, "one": 10 / 5, "nobody": 0.0}.items():
        assert float(sum(rank[f"mean {name}"] for rank in ranks)) / 2 == pytest.approx(want, abs=1e-12)
