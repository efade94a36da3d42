"""Adam on the rows that were seen: its definition, and what it leaves alone."""

import numba
import pytest
import torch

from sparse3d_ops.selective_adam import selective_adam

NUMBERS = (0.01, 0.9, 0.99, 1e-8)


def step(values, gradient, mean, square):
    lr, *rest = NUMBERS
    selective_adam([values], [gradient], [mean], [square], [lr], *rest)


def tables(dtype=torch.float64, rows=50, columns=3):
    torch.manual_seed(0)
    values, gradient, mean = (torch.randn(rows, columns, dtype=dtype) for _ in range(3))
    gradient[::3] = 0
    gradient[1:2, 0] = 0  # a row with one zero was seen
    return values, gradient, mean, torch.rand(rows, columns, dtype=dtype)


@pytest.mark.parametrize("columns", [1, 3, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_were_seen_take_a_step_and_the_others_stay(dtype, columns):
    values, gradient, mean, square = tables(dtype, columns=columns)
    lr, b1, b2, eps = NUMBERS
    seen = (gradient != 0).any(1)
    m = torch.where(seen[:, None], b1 * mean + (1 - b1) * gradient, mean)
    s = torch.where(seen[:, None], b2 * square + (1 - b2) * gradient**2, square)
    want = torch.where(seen[:, None], values - lr * m / (s.sqrt() + eps), values)
    untouched = values[~seen].clone()
    step(values, gradient, mean, square)
    torch.testing.assert_close((values, mean, square), (want, m, s))
    assert torch.equal(values[~seen], untouched) and len(untouched) > 10


def test_a_nan_is_no_zero():
    values, gradient, mean, square = tables()
    gradient[0] = torch.nan
    step(values, gradient, mean, square)
    assert values[0].isnan().all() and values[1:].isfinite().all()


def test_nothing_to_do_is_legal():
    empty = tables(rows=0)
    step(*empty)


@pytest.mark.numba_bodies
def test_threads_do_not_change_a_bit():
    results = []
    for threads in (1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        table = tables(torch.float32, rows=5000)
        step(*table)
        numba.set_num_threads(before)
        results.append(table[0])
    assert torch.equal(*results)


def test_errors_say_what_came():
    values, gradient, mean, square = tables()
    with pytest.raises(ValueError, match=r"mean has shape \(50, 2\)"):
        step(values, gradient, mean[:, :2], square)
    with pytest.raises(ValueError, match="gradient is float32"):
        step(values, gradient.float(), mean, square)
    with pytest.raises(ValueError, match="square is not contiguous"):
        step(values, gradient, mean, square.T.contiguous().T)
    with pytest.raises(ValueError, match="1 tables came with 1 gradients, 1 and 1 moments and 2 rates"):
        selective_adam([values], [gradient], [mean], [square], [0.1, 0.2], *NUMBERS[1:])


def test_tables_together_are_tables_one_by_one():
    lrs = [0.01, 0.02]
    alone = [tables(columns=3), tables(torch.float32, rows=7, columns=1)]
    together = [[part.clone() for part in table] for table in alone]
    for table, lr in zip(alone, lrs, strict=True):
        selective_adam(*([part] for part in table), [lr], *NUMBERS[1:])
    selective_adam(*map(list, zip(*together, strict=True)), lrs, *NUMBERS[1:])
    for table, wanted in zip(together, alone, strict=True):
        assert all(map(torch.equal, table, wanted))
