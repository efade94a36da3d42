"""Attention within sets by the definition: a loop over sets, heads and queries."""

import math

import torch
from torch import Tensor


def set_attention(query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, set_size, heads):
    """The output, and the logarithm of each row's and head's sum of exponentials."""
    depth = query.shape[1] // heads
    out, lse = torch.zeros_like(query), torch.zeros(len(query), heads, dtype=query.dtype)
    for s in range(len(offsets) - 1):
        rows = order[offsets[s] : offsets[s + 1]].tolist()
        for h in range(heads):
            part = slice(h * depth, (h + 1) * depth)
            for i in rows:
                scores = [float(query[i, part] @ key[j, part]) / math.sqrt(depth) for j in rows]
                peak = max(scores)
                weights = [math.exp(score - peak) for score in scores]
                total = sum(weights)
                out[i, part] = sum(w / total * value[j, part] for w, j in zip(weights, rows, strict=True))
                lse[i, h] = peak + math.log(total)
    return out, lse
