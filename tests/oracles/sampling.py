"""Samples from the weights of bins, one after the other."""

import math

import torch


def inverse_cdf(begin, length, weights, ray_starts, uniforms):
    out = torch.full(uniforms.shape, math.inf, dtype=torch.float64)
    for r in range(len(uniforms)):
        bins = slice(int(ray_starts[r]), int(ray_starts[r + 1]))
        starts, lengths = begin[bins].tolist(), length[bins].tolist()
        shares = [w if w > 0 else 0.0 for w in weights[bins].tolist()]
        shares = shares if sum(shares) > 0 else lengths
        for k, u in enumerate(uniforms[r].tolist()):
            left = min(max(u, 0.0), 1.0) * sum(shares)
            for start, size, share in zip(starts, lengths, shares, strict=True):
                if share > 0 and left <= share * (1 + 1e-14):
                    out[r, k] = start + size * left / share
                    break
                left -= share
    return out
