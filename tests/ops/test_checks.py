"""What is remembered of a GPU tensor, told with tensors on the meta device, which have no values either."""

import pytest
import torch

from sparse3d_ops.checks import remember, remembered
from sparse3d_ops.hashing import build, pack
from sparse3d_ops.kernel_map import submanifold_map
from sparse3d_ops.sparse_pool import sparse_max
from tests.ops.cases_voxels import cloud


def test_what_is_known_is_kept_with_the_tensor_until_it_is_written_to():
    table = torch.zeros(4, dtype=torch.int32, device="meta")
    assert remembered(table, "range") is None
    remember(table, "range", (-1, 3))
    remember(table, "fits", True)
    assert remembered(table, "range") == (-1, 3) and remembered(table, "fits")
    assert remembered(table.clone(), "range") is None and remembered(table[1:], "range") is None
    table.view(2, 2)[0] = 7  # through a view
    assert remembered(table, "range") is None and remembered(table, "fits") is None
    remember(table, "range", (0, 7))
    assert remembered(table, "range") == (0, 7) and remembered(table, "fits") is None


def test_on_a_cpu_nothing_is_kept_for_numpy_writes_unseen():
    table = torch.zeros(4, dtype=torch.int32)
    remember(table, "range", (0, 0))
    table.numpy()[0] = 9
    assert remembered(table, "range") is None


def test_tensors_of_inference_mode_are_remembered_too():
    with torch.inference_mode():
        table = torch.zeros(4, dtype=torch.int32, device="meta")
        remember(table, "range", (0, 0))
        assert remembered(table, "range") == (0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_layer_on_a_map_of_our_own_never_waits_for_the_gpu():
    sites = cloud(90, (4, 4, 3)).cuda()
    table, reverse = submanifold_map(*build(pack(sites)), sites, [3, 3, 3], [1, 1, 1])
    features = torch.randn(len(sites), 5, device="cuda", requires_grad=True)
    sparse_max(features, table, reverse)[0].sum().backward()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sparse_max(features, table, reverse)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
