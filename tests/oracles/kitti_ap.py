"""KITTI's average precision by its rules, one frame and one threshold at a time, in plain Python.

Overlaps in the camera frame come from the rational polygons of `boxes`, in axes (x, z) with heights [y - h,
y].
"""

import math

from tests.oracles.boxes import area, corners_bev, cut

LEVELS = {"easy": (40, 0, 0.15), "moderate": (25, 1, 0.3), "hard": (25, 2, 0.5)}
NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}


def rows(objects):
    """One dict a row, boxes as (x, z, ., l, w, ., -rotation_y)."""
    return [{key: column[i] for key, column in vars(objects).items()} for i in range(len(objects))]


def overlap(metric, detection, truth, own_area=False):
    if metric == "2d":
        a, b = detection["boxes_image"], truth["boxes_image"]
        shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return shared / areas[0] if own_area else shared / (sum(areas) - shared)
    if own_area:
        return 0.0
    sizes = [row["dimensions"] for row in (detection, truth)]
    if math.dist(detection["locations"], truth["locations"]) > 10:
        return 0.0
    flat = [
        corners_bev(
            [
                float(v)
                for v in (
                    *r["locations"][[0, 2]],
                    0,
                    r["dimensions"][2],
                    r["dimensions"][1],
                    0,
                    -r["rotation_y"],
                )
            ]
        )
        for r in (detection, truth)
    ]
    polygon = flat[0]
    for start, end in zip(flat[1], flat[1][1:] + flat[1][:1], strict=True):
        polygon = cut(polygon, start, end)
    shared = float(area(polygon)) if polygon else 0.0
    whole = [size[1] * size[2] for size in sizes]
    if metric == "3d":
        bottoms = [row["locations"][1] for row in (detection, truth)]
        height = min(bottoms) - max(bottom - size[0] for bottom, size in zip(bottoms, sizes, strict=True))
        shared *= max(0, height)
        whole = [size.prod() for size in sizes]
    return shared / (sum(whole) - shared)


def average_precision(truth_frames, result_frames, name, metric, level, min_overlap):
    """(R40, R11) in percent."""
    least_height, most_occluded, most_truncated = LEVELS[level]
    image_metric = "2d" if metric == "aos" else metric
    frames, total = [], 0
    for truth, results in zip(truth_frames, result_frames, strict=True):
        wanted, regions = [], []
        for row in rows(truth):
            height = row["boxes_image"][3] - row["boxes_image"][1]
            hard = (
                row["occluded"] > most_occluded or row["truncated"] > most_truncated or height <= least_height
            )
            if row["names"] == name:
                wanted.append((row, hard))
            elif row["names"] == NEIGHBOURS.get(name):
                wanted.append((row, True))
            elif row["names"] == "DontCare":
                regions.append(row)
        found = []
        for row in rows(results):
            small = row["boxes_image"][3] - row["boxes_image"][1] < least_height
            if small or row["names"] == name:
                found.append((row, small))
        total += sum(not ignored for _, ignored in wanted)
        table = [[overlap(image_metric, d, g) for d, _ in found] for g, _ in wanted]
        excused = [any(overlap(image_metric, d, r, True) > min_overlap for r in regions) for d, _ in found]
        frames.append((wanted, found, table, excused))

    def assign(frame, key):
        """[(truth, detection)] index pairs; `key(overlap, score, small)` is None or what to maximise."""
        wanted, found, table, _ = frame
        free, pairs = set(range(len(found))), []
        for g in range(len(wanted)):
            keys = {
                d: key(table[g][d], found[d][0]["scores"], found[d][1])
                for d in free
                if table[g][d] > min_overlap
            }
            keys = {d: value for d, value in keys.items() if value is not None}
            if keys:
                best = max(sorted(keys), key=lambda d: keys[d])
                free.remove(best)
                pairs.append((g, best))
        return pairs, free

    scores = []
    for frame in frames:
        for g, d in assign(frame, lambda overlap, score, small: score)[0]:
            if not frame[0][g][1] and not frame[1][d][1]:
                scores.append(frame[1][d][0]["scores"])
    scores.sort(reverse=True)
    thresholds, recall = [], 0.0
    for i, score in enumerate(scores):
        last = i == len(scores) - 1
        if last or not ((i + 2) / total - recall < recall - (i + 1) / total):
            thresholds.append(score)
            recall += 1 / 40

    curve = [0.0] * 41
    for t, threshold in enumerate(thresholds):
        good, true, false = 0.0, 0, 0
        for frame in frames:
            wanted, found, _, excused = frame

            def largest(overlap, score, small, threshold=threshold):
                return None if score < threshold else (not small, 0 if small else overlap)

            pairs, free = assign(frame, largest)
            for g, d in pairs:
                if not wanted[g][1] and not found[d][1]:
                    true += 1
                    turn = wanted[g][0]["alpha"] - found[d][0]["alpha"]
                    good += (1 + math.cos(turn)) / 2 if metric == "aos" else 1
            false += sum(
                not found[d][1] and found[d][0]["scores"] >= threshold and not excused[d] for d in free
            )
        curve[t] = good / (true + false) if true + false else 0.0
    best = [max(curve[i:]) for i in range(41)]
    return 100 * sum(best[1:]) / 40, 100 * sum(best[::4]) / 11
