"""The segment reductions under the law suite."""

import torch

from sparse3d_ops import segment
from tests.ops.laws import OpLaw
from tests.oracles import segment as oracle


def _case(rows, channels, segments):
    def make(dtype, device):
        return (
            torch.randn(rows, channels, dtype=dtype).to(device),
            torch.randint(0, segments, (rows,)).to(device),
            segments,
        )

    return make


def _sorted(dtype, device):
    values, ids, segments = _case(40, 3, 9)(dtype, device)
    return values, ids.sort().values, segments


def _ties(dtype, device):
    # Small whole numbers: most of the largest values stand in several rows.
    values, ids, segments = _case(60, 4, 5)(dtype, device)
    return values.round().clamp(-1, 1), ids, segments


def _long_ties(dtype, device):
    values, ids, segments = _case(900, 1, 1)(dtype, device)
    return values.round().clamp(-1, 1), ids, segments


def _empty(segments):
    def make(dtype, device):
        return torch.zeros(0, 3, dtype=dtype, device=device), torch.zeros(0).long().to(device), segments

    return make


def _rows(taken, channels, rows, low=-1):
    def make(dtype, device):
        return (
            torch.randn(rows, channels, dtype=dtype).to(device),
            torch.randint(low, rows, (taken,)).to(device),
        )

    return make


GATHER_CASES = {
    "empty": lambda dtype, device: (
        torch.zeros(3, 2, dtype=dtype, device=device),
        torch.zeros(0).long().to(device),
    ),
    "from_nothing": lambda dtype, device: (
        torch.zeros(0, 2, dtype=dtype, device=device),
        torch.full((4,), -1).to(device),
    ),
    "single": _rows(1, 3, 1, low=0),
    "often": _rows(40, 3, 4),
    "seldom": _rows(5, 2, 30),
}
CASES = {
    "empty": _empty(2),
    "no_segments": _empty(0),
    "single": _case(1, 3, 1),
    "duplicate": _case(40, 5, 3),
    "sorted": _sorted,
    "with_empty_segments": _case(7, 2, 11),
}
SMALL = tuple(CASES)
# On a GPU long segments are reduced in pieces. Left out of gradcheck, which takes a step for each value.
CASES["long"] = _case(700, 2, 2)
# The largest value has no derivative at a tie: left out of gradcheck.
MAX_CASES = {**CASES, "ties": _ties, "long_ties": _long_ties}
LAWS = [
    OpLaw(segment.gather_rows, oracle.gather_rows, GATHER_CASES, differentiable=(0,)),
    *(
        OpLaw(op, definition, cases, differentiable=(0,), gradient_cases=SMALL)
        for op, definition, cases in (
            (segment.segment_sum, oracle.segment_sum, CASES),
            (segment.segment_mean, oracle.segment_mean, CASES),
            (segment.segment_max, oracle.segment_max, MAX_CASES),
            (segment.segment_softmax, oracle.segment_softmax, CASES),
        )
    ),
]
