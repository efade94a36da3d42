"""Which track follows which labelled object, frame by frame: the body in numba.

Objects and tracks of all sequences are numbered through, so that nothing carries over from one sequence to
the next. The boxes of frame f are rows start[f] to start[f + 1].
"""

import numba
import numpy as np

from sparse3d.evaluation.assignment import assign_all

MISS, MATCH, SWITCH = 0, 1, 2


@numba.njit(cache=True, nogil=True)
def associate(gt_start, gt_track, gt_centre, det_start, det_track, det_centre, limit, status, pair, gaps):
    """Fill, for each label (G,): `status`, the row of its detection `pair` (-1) and their distance `gaps`.

    A label keeps its last track where that stands nearer than `limit`; labels are asked in order. The rest is
    assigned: as many pairs as possible, and of these the nearest. A track that is not the last one of a label
    is a SWITCH.
    """
    objects = gt_track.max() + 1 if len(gt_track) else 0
    last = np.full(objects, -1, dtype=np.int64)
    status[:], pair[:], gaps[:] = MISS, -1, np.nan
    for f in range(len(gt_start) - 1):
        first_gt, first_det = gt_start[f], det_start[f]
        labels, found = gt_start[f + 1] - first_gt, det_start[f + 1] - first_det
        taken = np.zeros(found, dtype=np.bool_)
        gap = np.empty((labels, found))
        for g in range(labels):
            for d in range(found):
                x = gt_centre[first_gt + g, 0] - det_centre[first_det + d, 0]
                y = gt_centre[first_gt + g, 1] - det_centre[first_det + d, 1]
                gap[g, d] = np.sqrt(x * x + y * y)
        for g in range(labels):
            for d in range(found):
                if not taken[d] and det_track[first_det + d] == last[gt_track[first_gt + g]]:
                    if gap[g, d] < limit:
                        taken[d] = True
                        status[first_gt + g], pair[first_gt + g] = MATCH, first_det + d
                        gaps[first_gt + g] = gap[g, d]
                    break
        # A pair more is worth more than all distances together, which are below `limit` each.
        bonus = 2 * limit * (labels + 1)
        weights = np.zeros((labels, found))
        for g in range(labels):
            if status[first_gt + g] == MISS:
                for d in range(found):
                    if not taken[d] and gap[g, d] < limit:
                        weights[g, d] = bonus - gap[g, d]
        columns = assign_all(weights)
        for g in range(labels):
            d = columns[g]
            if d < 0:
                continue
            label = first_gt + g
            before, now = last[gt_track[label]], det_track[first_det + d]
            status[label] = SWITCH if before >= 0 and before != now else MATCH
            pair[label], gaps[label] = first_det + d, gap[g, d]
            last[gt_track[label]] = now
