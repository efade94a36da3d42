"""Numba bodies of volume rendering along packed rays. A thread owns a ray and sums in the order of its
samples.

T_{i+1} is taken as T_i - w_i, forward and backward alike: both walks see the same bits, so both stop at the
same sample, and the way back needs no exponentials.
"""

import math

import numba
import numpy as np


def scalar(value: float, like: np.ndarray) -> np.floating:
    """A number of the dtype of an array: it decides on the precision inside of a body."""
    return like.dtype.type(value)


@numba.njit(parallel=True, cache=True, nogil=True)
def composite(sigma, values, dt, ray_starts, out, opacity, weights, stop):
    channels = values.shape[1]
    zero, one = type(stop)(0), type(stop)(1)
    for r in numba.prange(len(opacity)):
        begin, end = ray_starts[r], ray_starts[r + 1]
        reaching, live, total = one, end, zero
        for i in range(begin, end):
            if reaching < stop:
                live = i
                break
            weight = reaching * -math.expm1(-(sigma[i] * dt[i]))
            weights[i] = weight
            reaching -= weight
            total += weight
        for i in range(live, end):
            weights[i] = zero
        opacity[r] = total
        for c in range(channels):
            total = zero
            for i in range(begin, live):
                total += weights[i] * values[i, c]
            out[r, c] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def composite_backward(
    grad_out, grad_opacity, grad_weights, values, weights, ray_starts, of_depth, of_values, stop
):
    channels = values.shape[1]
    zero, one = type(stop)(0), type(stop)(1)
    for r in numba.prange(len(grad_opacity)):
        begin, end = ray_starts[r], ray_starts[r + 1]
        reaching, live = one, end
        for i in range(begin, end):
            if reaching < stop:
                live = i
                break
            reaching -= weights[i]
            of_depth[i] = reaching
        for i in range(live, end):
            of_depth[i] = zero
            for c in range(channels):
                of_values[i, c] = zero
        behind = zero
        for i in range(live - 1, begin - 1, -1):
            weight = weights[i]
            q = grad_opacity[r] + grad_weights[i]
            for c in range(channels):
                q += grad_out[r, c] * values[i, c]
                of_values[i, c] = weight * grad_out[r, c]
            of_depth[i] = q * of_depth[i] - behind
            behind += q * weight


@numba.njit(parallel=True, cache=True, nogil=True)
def running_sum(values, ray_starts, out, reverse):
    for r in numba.prange(len(ray_starts) - 1):
        begin, end = ray_starts[r], ray_starts[r + 1]
        total = 0.0
        for k in range(end - begin):
            i = end - 1 - k if reverse else begin + k
            out[i] = total
            total += values[i]


@numba.njit(parallel=True, cache=True, nogil=True)
def accumulate(weights, values, ray_starts, out):
    for r in numba.prange(len(out)):
        for c in range(values.shape[1]):
            total = weights.dtype.type(0)
            for i in range(ray_starts[r], ray_starts[r + 1]):
                total += weights[i] * values[i, c]
            out[r, c] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def ray_dot(rays, values, ray_starts, out):
    for r in numba.prange(len(rays)):
        for i in range(ray_starts[r], ray_starts[r + 1]):
            total = out.dtype.type(0)
            for c in range(values.shape[1]):
                total += rays[r, c] * values[i, c]
            out[i] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def ray_scale(rays, weights, ray_starts, out):
    for r in numba.prange(len(rays)):
        for i in range(ray_starts[r], ray_starts[r + 1]):
            for c in range(rays.shape[1]):
                out[i, c] = weights[i] * rays[r, c]


# The distortion in one walk: sum_{i, j} w_i w_j |t_i - t_j| = 2 sum_i w_i (t_i W_i - M_i), W_i and M_i the
# sums of w and w t before i. They are float64 and t counts from the ray's first sample: far away t_i W_i -
# M_i cancels.


@numba.njit(parallel=True, cache=True, nogil=True)
def distortion(weights, t, dt, ray_starts, out):
    for r in numba.prange(len(out)):
        begin, end = ray_starts[r], ray_starts[r + 1]
        weight = moment = pairs = own = 0.0
        for i in range(begin, end):
            w, place = np.float64(weights[i]), np.float64(t[i]) - np.float64(t[begin])
            pairs += w * (place * weight - moment)
            own += w * w * dt[i]
            weight += w
            moment += w * place
        out[r] = 2 * pairs + own / 3


@numba.njit(parallel=True, cache=True, nogil=True)
def distortion_backward(grad, weights, t, dt, ray_starts, of_weights, of_t, of_dt):
    for r in numba.prange(len(grad)):
        begin, end = ray_starts[r], ray_starts[r + 1]
        all_weight = all_moment = weight = moment = 0.0
        for i in range(begin, end):
            w, place = np.float64(weights[i]), np.float64(t[i]) - np.float64(t[begin])
            all_weight += w
            all_moment += w * place
        for i in range(begin, end):
            w, place = np.float64(weights[i]), np.float64(t[i]) - np.float64(t[begin])
            weight_behind, moment_behind = all_weight - weight - w, all_moment - moment - w * place
            spread = place * (weight - weight_behind) - (moment - moment_behind)
            of_weights[i] = grad[r] * (2 * spread + 2 * w * dt[i] / 3)
            of_t[i] = grad[r] * 2 * w * (weight - weight_behind)
            of_dt[i] = grad[r] * w * w / 3
            weight += w
            moment += w * place
