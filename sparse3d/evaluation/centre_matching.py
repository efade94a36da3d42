"""Who found whom by distances of centres: bodies in numba, frames laid end to end.

Detections come by falling score over all frames; `det_frame` (D,) is the frame of each. The boxes of frame f
are rows gt_start[f] to gt_start[f + 1]. Centres are (N, 2) or (N, 3) float64, metres. `out` (D,) int64 gets
the row of the box that each detection found, -1 for none. Ties of distance: the lowest row.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _nearest(centre, centres, begin, end, taken):
    """Row and distance of the nearest centre that is not taken; -1 and infinity where there is none."""
    best, nearest = -1, np.inf
    for g in range(begin, end):
        if taken[g]:
            continue
        squared = 0.0
        for k in range(centres.shape[1]):
            squared += (centre[k] - centres[g, k]) ** 2
        gap = np.sqrt(squared)
        if gap < nearest:
            best, nearest = g, gap
    return best, nearest


@numba.njit(cache=True, nogil=True)
def take_nearest_free(det_frame, det_centres, gt_start, gt_centres, distance, out):
    """nuScenes: each detection takes the nearest box that no detection took before, if it is nearer than
    `distance`."""
    taken = np.zeros(len(gt_centres), dtype=np.bool_)
    for d in range(len(det_frame)):
        begin, end = gt_start[det_frame[d]], gt_start[det_frame[d] + 1]
        best, nearest = _nearest(det_centres[d], gt_centres, begin, end, taken)
        out[d] = best if nearest < distance else -1
        if out[d] >= 0:
            taken[best] = True


@numba.njit(cache=True, nogil=True)
def claim_nearest(det_frame, det_centres, gt_start, gt_centres, out, gaps):
    """Argoverse 2: each detection belongs to the nearest box, found or not, and the first one of a box has
    it. `gaps` (D,) gets the distances to the nearest box, infinity where the frame has none."""
    nobody = np.zeros(len(gt_centres), dtype=np.bool_)
    claimed = np.zeros(len(gt_centres), dtype=np.bool_)
    for d in range(len(det_frame)):
        begin, end = gt_start[det_frame[d]], gt_start[det_frame[d] + 1]
        best, gaps[d] = _nearest(det_centres[d], gt_centres, begin, end, nobody)
        out[d] = -1
        if best >= 0 and not claimed[best]:
            claimed[best] = True
            out[d] = best
