"""A random order of 0 .. n - 1 that takes no memory: any part of it is computed when it is asked for.

A Feistel network is a bijection of 2^b numbers whatever its round function is; numbers that leave the range
are sent through it again until they are back in it ("cycle walking": Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002), which keeps it a bijection of n.
"""

import numpy as np

_ROUNDS = 4  # an even number: the halves change places in each
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the increment of SplitMix64


def shuffled(positions: np.ndarray, length: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers at `positions` (N,) int64 in [0, length) of the order that (seed, epoch) gives of
    range(length): (N,) int64. Each position has a number of its own."""
    if length <= 1:
        return np.zeros_like(positions)
    bits = max(2, (length - 1).bit_length())
    keys = np.random.SeedSequence([seed, epoch], spawn_key=(1,)).generate_state(_ROUNDS, np.uint64)
    out = _network(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(out >= length)
    while len(outside):  # at most 2 n numbers take part: every second walks at most
        out[outside] = _network(out[outside], bits, keys)
        outside = outside[out[outside] >= length]
    return out.astype(np.int64)


def _network(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """A bijection of [0, 2^bits): halves of `bits // 2` and the rest, each changed by a hash of the other."""
    small, large = bits // 2, bits - bits // 2
    left, right = numbers >> np.uint64(large), numbers & np.uint64((1 << large) - 1)
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & np.uint64((1 << small) - 1))
        small, large = large, small
    return (left << np.uint64(large)) | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014); uint64 wraps around."""
    x = x * np.uint64(_GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
