"""Segment reductions by the definition: a loop over rows or segments."""

import math

import torch
from torch import Tensor


def gather_rows(values: Tensor, rows: Tensor) -> Tensor:
    zero = torch.zeros(values.shape[1], dtype=values.dtype)
    taken = [values[row] if row >= 0 else zero for row in rows.tolist()]
    return torch.stack(taken) if taken else torch.zeros(0, values.shape[1], dtype=values.dtype)


def segment_sum(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    out = torch.zeros(num_segments, values.shape[1], dtype=values.dtype)
    for row, s in zip(values, segment.tolist(), strict=True):
        out[s] += row
    return out


def segment_mean(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    out = torch.zeros(num_segments, values.shape[1], dtype=values.dtype)
    for s in set(segment.tolist()):
        out[s] = values[segment == s].mean(0)
    return out


def segment_max(values: Tensor, segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    out = torch.zeros(num_segments, values.shape[1], dtype=values.dtype)
    argmax = torch.full((num_segments, values.shape[1]), -1)
    for s in set(segment.tolist()):
        for c in range(values.shape[1]):
            rows = [row for row in range(len(values)) if segment[row] == s]
            # NaN is above every number, and the lowest row wins: Python's max returns the first of equals.
            best = max(rows, key=lambda row: (math.isnan(values[row, c]), float(values[row, c].nan_to_num())))
            out[s, c], argmax[s, c] = values[best, c], best
    return out, argmax


def segment_softmax(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    out = torch.zeros_like(values)
    for s in set(segment.tolist()):
        out[segment == s] = torch.softmax(values[segment == s], 0)
    return out
