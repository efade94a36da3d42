"""What is remembered of a GPU tensor, told with tensors on the meta device, which have no values either."""

import torch

from sparse3d_ops.checks import remember, remembered


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
