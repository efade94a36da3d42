"""The density of Gaussians at points, by the formula."""

import math


def gaussian_density(points, voxel, starts, order, means, roots, opacities, features):
    density, sums = points.new_zeros(len(points)), points.new_zeros(len(points), features.shape[1])
    for q, v in enumerate(voxel.tolist()):
        if v < 0:
            continue
        for n in order[int(starts[v]) : int(starts[v + 1])].tolist():
            off = roots[n] @ (points[q] - means[n])
            weight = float(opacities[n]) * math.exp(-float(off @ off) / 2)
            if weight >= 1 / 255:
                density[q] += weight
                sums[q] += weight * features[n]
    return density, sums
