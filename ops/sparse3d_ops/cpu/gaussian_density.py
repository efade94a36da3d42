"""Numba body of the density of Gaussians at points."""

import math

import numba
import numpy as np


@numba.njit(parallel=True, cache=True, nogil=True)
def density(points, voxel, starts, order, means, roots, opacities, features, least, out, sums):
    """out (Q,) and sums (Q, C) are outputs; least (1,) is the smallest weight that counts."""
    number = points.dtype.type
    # Beyond this an opacity of 1 has fallen to it: most pairs need no exponential.
    far = number(-2.001 * math.log(least[0]))
    half = number(-0.5)
    for q in numba.prange(len(points)):
        total = number(0)
        sums[q] = 0
        v = voxel[q]
        if v >= 0:
            for k in range(starts[v], starts[v + 1]):
                n = order[k]
                x, y, z = points[q, 0] - means[n, 0], points[q, 1] - means[n, 1], points[q, 2] - means[n, 2]
                square = number(0)
                for i in range(3):
                    along = roots[n, i, 0] * x + roots[n, i, 1] * y + roots[n, i, 2] * z
                    square += along * along
                if square > far and opacities[n] <= 1:
                    continue
                weight = opacities[n] * np.exp(half * square)
                if weight >= least[0] and weight < math.inf:
                    total += weight
                    for c in range(features.shape[1]):
                        sums[q, c] += weight * features[n, c]
        out[q] = total
