"""The KITTI benchmark's assignment of detections to ground truth, counted at many score thresholds.

States of ground truth: VALID counts, IGNORED may be found or missed without consequence (too hard, or a class
that is easily confused), OTHER takes no part, DONT_CARE is a region of the image where no detection is false.
States of detections: VALID, IGNORED (too small in the image), OTHER. Rules after the benchmark's development
kit (Geiger et al., CVPR 2012). `starts` and pair arrays are those of `KittiFrames`.
"""

import numba
import numpy as np

VALID, IGNORED, OTHER, DONT_CARE = 0, 1, -1, -2


@numba.njit(cache=True, nogil=True)
def matched_scores(starts, gt_state, det_state, scores, overlap, min_overlap, out):
    """Fill `out` (D,) with the scores of true positives when every detection counts; returns how many.

    Each ground truth takes the free detection of the highest score (the first one wins ties) that overlaps it
    enough.
    """
    taken = np.zeros(len(scores), dtype=np.bool_)
    count = 0
    for f in range(starts.shape[1] - 1):
        width = starts[0, f + 1] - starts[0, f]
        for g in range(width):
            state = gt_state[starts[0, f] + g]
            if state < 0:
                continue
            best = -1
            for d in range(starts[1, f], starts[1, f + 1]):
                pair = starts[2, f] + (d - starts[1, f]) * width + g
                if det_state[d] >= 0 and not taken[d] and overlap[pair] > min_overlap:
                    if best < 0 or scores[d] > scores[best]:
                        best = d
            if best >= 0:
                taken[best] = True
                if state == VALID and det_state[best] == VALID:
                    out[count] = scores[best]
                    count += 1
    return count


def recall_thresholds(scores: np.ndarray, gt_count: int, positions: int) -> np.ndarray:
    """Scores at which recall comes closest to 0, 1/(positions - 1), 2/(positions - 1), ..., highest first.

    `scores` are those of the true positives. One score serves one position at most: fewer than `positions`
    true positives give fewer thresholds, and the remaining positions count as precision 0. That is the
    benchmark's rule.
    """
    ordered = np.sort(scores)[::-1]
    thresholds = []
    recall = 0.0
    for i in range(len(ordered)):
        here, last = (i + 1) / gt_count, i == len(ordered) - 1
        following = here if last else (i + 2) / gt_count
        if not last and following - recall < recall - here:
            continue
        thresholds.append(ordered[i])
        recall += 1 / (positions - 1)
    return np.array(thresholds, dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _take_best(f, g, starts, det_state, scores, overlap, min_overlap, threshold, taken):
    """The free detection of the greatest overlap; one that is IGNORED only if there is no other. -1: none."""
    width = starts[0, f + 1] - starts[0, f]
    best, best_overlap = -1, 0.0
    for d in range(starts[1, f], starts[1, f + 1]):
        if det_state[d] < 0 or taken[d] or scores[d] < threshold:
            continue
        value = overlap[starts[2, f] + (d - starts[1, f]) * width + g]
        if not value > min_overlap:
            continue
        if det_state[d] == VALID and value > best_overlap:  # an IGNORED best leaves best_overlap at 0
            best, best_overlap = d, value
        elif det_state[d] == IGNORED and best < 0:
            best = d
    if best >= 0:
        taken[best] = True
    return best


@numba.njit(cache=True, nogil=True)
def _excused(d, f, starts, gt_state, overlap, min_overlap):
    """Whether detection d lies on a DONT_CARE region."""
    width = starts[0, f + 1] - starts[0, f]
    for g in range(width):
        pair = starts[2, f] + (d - starts[1, f]) * width + g
        if gt_state[starts[0, f] + g] == DONT_CARE and overlap[pair] > min_overlap:
            return True
    return False


@numba.njit(parallel=True, cache=True, nogil=True)
def count_at_thresholds(
    starts, gt_state, det_state, scores, overlap, similarity, min_overlap, thresholds, out
):
    """Fill `out` (T, 3): true positives, false positives, summed similarity of the true positives.

    One thread owns a threshold and visits the frames in order: the sums do not depend on the number of
    threads.
    """
    for t in numba.prange(len(thresholds)):
        taken = np.zeros(len(scores), dtype=np.bool_)
        hits, false, alike = 0, 0, 0.0
        for f in range(starts.shape[1] - 1):
            width = starts[0, f + 1] - starts[0, f]
            for g in range(width):
                state = gt_state[starts[0, f] + g]
                if state < 0:
                    continue
                d = _take_best(f, g, starts, det_state, scores, overlap, min_overlap, thresholds[t], taken)
                if d >= 0 and state == VALID and det_state[d] == VALID:
                    hits += 1
                    alike += similarity[starts[2, f] + (d - starts[1, f]) * width + g]
            for d in range(starts[1, f], starts[1, f + 1]):
                if det_state[d] == VALID and not taken[d] and scores[d] >= thresholds[t]:
                    if not _excused(d, f, starts, gt_state, overlap, min_overlap):
                        false += 1
        out[t, 0], out[t, 1], out[t, 2] = hits, false, alike
