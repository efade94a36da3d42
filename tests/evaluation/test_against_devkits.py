"""The same numbers as the data sets' own evaluation code, which runs in an interpreter of its own."""

import json
import math

import numpy as np

from sparse3d.evaluation import argoverse2, nuscenes, nuscenes_rules, tracking
from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.io.nuscenes_results import SampleBoxes, read_results, write_results

SIZES = np.array([[4.6, 1.9, 1.7], [0.7, 0.7, 1.8], [1.7, 0.6, 1.3], [0.5, 2.5, 1.0], [0.4, 0.4, 1.0]])


def nuscenes_scene(rng, ego, labels):
    """Boxes (N, 7) around the vehicle, some beyond every range, and what belongs to them."""
    count = len(labels)
    radius, angle = rng.uniform(3, 60, count), rng.uniform(-np.pi, np.pi, count)
    centres = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(0, 0.5, count)], 1) + ego
    sizes = SIZES[rng.integers(0, len(SIZES), count)] * rng.uniform(0.8, 1.2, (count, 3))
    yaws = rng.uniform(-np.pi, np.pi, (count, 1))
    velocities = rng.normal(0, 3, (count, 2))
    velocities[rng.random(count) < 0.1] = np.nan
    attributes = rng.integers(-1, len(nuscenes_rules.ATTRIBUTES), count)
    points = rng.integers(0, 6, count)
    return FrameBoxes(np.concatenate([centres, sizes, yaws], 1), labels, None, velocities, attributes, points)


def found_in(rng, truth, classes):
    """Detections of a scene: some boxes missed, some twice, some of another class, tied scores."""
    rows = np.flatnonzero(rng.random(len(truth)) < 0.85)
    rows = np.concatenate([rows, rng.permutation(rows)[: len(rows) // 3]])
    boxes = truth.boxes[rows] + rng.normal(size=(len(rows), 7)) * [0.8, 0.8, 0.2, 0.1, 0.05, 0.05, 0.4]
    boxes[:, 3:6] = np.maximum(boxes[:, 3:6], 0.1)
    labels = np.where(rng.random(len(rows)) < 0.1, rng.integers(0, classes, len(rows)), truth.labels[rows])
    velocities = np.nan_to_num(truth.velocities[rows]) + rng.normal(0, 0.5, (len(rows), 2))
    wrong = rng.random(len(rows)) < 0.3
    attributes = np.where(wrong, 0, np.maximum(truth.attributes[rows], 0))
    scores = np.round(rng.uniform(0.05, 1, len(rows)), 2)
    return FrameBoxes(boxes, labels, scores, velocities, attributes)


def quaternion(yaw):
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def as_json(box):
    return {
        "translation": box[:3].tolist(),
        "size": box[[4, 3, 5]].tolist(),
        "rotation": quaternion(box[6]),
    }


def attribute(index):
    return nuscenes_rules.ATTRIBUTES[index] if index >= 0 else ""


def test_nds_is_that_of_the_nuscenes_devkit(tmp_path, run_devkit):
    rng = np.random.default_rng(5)
    names = nuscenes_rules.CLASSES
    truth, tree, samples, egos, racks = [], {}, {}, [], []
    for i in range(60):
        token, ego = f"sample{i}", np.array([*rng.uniform(300, 900, 2), 0.0])
        scene = nuscenes_scene(rng, ego, rng.integers(0, len(names) - 1, 40))  # no barriers: an absent class
        found = found_in(rng, scene, len(names))
        at_bicycles = scene.boxes[np.isin(scene.labels, [6, 7])][:2]
        rack = at_bicycles + [0.5, 0, 0, 3, 2, 1, 0.3]
        truth.append(scene), egos.append(ego), racks.append(rack)
        rows = [
            as_json(scene.boxes[k])
            | {
                "sample_token": token,
                "velocity": scene.velocities[k].tolist(),
                "num_pts": int(scene.num_points[k]),
                "detection_name": names[scene.labels[k]],
                "detection_score": -1.0,
                "attribute_name": attribute(scene.attributes[k]),
            }
            for k in range(len(scene))
        ]
        tree[token] = {"ego": ego.tolist(), "racks": [as_json(box) for box in rack], "boxes": rows}
        samples[token] = SampleBoxes(
            found.boxes,
            found.velocities,
            np.array(names)[found.labels],
            found.scores,
            np.array([attribute(k) for k in found.attributes]),
        )
    (tmp_path / "truth.json").write_text(json.dumps({"samples": tree}))
    write_results(tmp_path / "results.json", "detection", samples)
    theirs = run_devkit("nuscenes_detection", tmp_path)

    read = read_results(tmp_path / "results.json", "detection")
    results = [nuscenes_rules.as_frame(sample, names) for sample in read.values()]
    counted = [
        [
            nuscenes_rules.countable(frame, names, ego[:2], nuscenes_rules.in_racks(rack, names))
            for frame, ego, rack in zip(frames, egos, racks, strict=True)
        ]
        for frames in (truth, results)
    ]
    assert [sum(map(len, frames)) for frames in counted] == theirs["counts"]
    ours = nuscenes.evaluate(*counted, names, absent="zero")
    assert 0.1 < ours.score < 0.9 and ours.score_name == "NDS"

    keys = {"ATE": "trans_err", "ASE": "scale_err", "AOE": "orient_err", "AVE": "vel_err", "AAE": "attr_err"}
    pairs = [(ours.score, theirs["nd_score"]), (ours.mean_ap, theirs["mean_ap"])]
    pairs += [(ours.errors[term], theirs["tp_errors"][key]) for term, key in keys.items()]
    for score in ours.classes:
        pairs += zip(score.ap, theirs["label_aps"][score.class_name].values(), strict=True)
        for term, key in keys.items():
            value = theirs["label_tp_errors"][score.class_name][key]
            assert (term in score.errors) == (not math.isnan(value)), (score.class_name, term)
            pairs += [(score.errors[term], value)] if term in score.errors else []
    largest = max(abs(a - b) for a, b in pairs)
    print(f"largest difference of {len(pairs)} numbers: {largest:.1e}")
    # The same sums in another order, and quaternions in place of headings.
    assert largest < 1e-12


PLACE = ("tx_m", "ty_m", "tz_m", "length_m", "width_m", "height_m", "qw", "qx", "qy", "qz")


def test_cds_is_that_of_av2(tmp_path, run_devkit):
    rng = np.random.default_rng(6)
    names = argoverse2.CLASSES
    truth, results, rows = [], [], {"truth": [], "results": []}
    for i in range(40):
        labels = rng.integers(0, len(names) - 2, 60)  # two classes are absent
        scene = nuscenes_scene(rng, np.zeros(3), labels)
        far = rng.uniform(1, 3.2, (60, 1))  # up to 190 m
        boxes = np.concatenate([scene.boxes[:, :2] * far, scene.boxes[:, 2:]], axis=1)
        scene = FrameBoxes(boxes, labels, None, scene.velocities, scene.attributes, scene.num_points)
        found = found_in(rng, scene, len(names))
        clutter = np.flatnonzero(rng.random(400) < 0.6)  # more than 100 bollards
        spread = rng.uniform([-100, -100, 0, 1, 1, 1, -3], [100, 100, 1, 2, 2, 2, 3], (len(clutter), 7))
        scores = rng.permutation(len(found) + len(clutter)) / 1000  # av2 breaks ties as its sort likes
        found = FrameBoxes(
            np.concatenate([found.boxes, spread]), np.append(found.labels, np.full(len(clutter), 3)), scores
        )
        truth.append(scene), results.append(found)
        for name, frame in (("truth", scene), ("results", found)):
            for k, box in enumerate(frame.boxes):
                last = (
                    {"num_interior_pts": int(frame.num_points[k])}
                    if name == "truth"
                    else {"score": scores[k]}
                )
                place = dict(zip(PLACE, [*box[:6].tolist(), *quaternion(box[6])], strict=True))
                row = {"log_id": "log", "timestamp_ns": i, "category": names[frame.labels[k]], **place}
                rows[name].append(row | last)
    for name, part in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    theirs = run_devkit("argoverse2", tmp_path)

    counted = [[argoverse2.countable(frame) for frame in frames] for frames in (truth, results)]
    assert [sum(map(len, frames)) for frames in counted] == theirs["counts"]
    ours = argoverse2.evaluate(*counted, absent="zero")
    assert 0.05 < ours.mean() < 0.9
    names_of = {"ap": "AP", "ATE": "ATE", "ASE": "ASE", "AOE": "AOE", "cds": "CDS"}
    pairs = [(ours.mean(name), theirs["mean"][key]) for name, key in names_of.items()]
    for score in ours.classes:
        row = theirs["classes"][score.class_name]
        pairs += [(getattr(score, name), row[key]) for name, key in names_of.items()]
    largest = max(abs(a - b) for a, b in pairs)
    print(f"largest difference of {len(pairs)} numbers: {largest:.1e}")
    assert largest < 1e-12  # av2 goes through quaternions


def walks(rng, frames, objects, classes):
    """Objects that walk through a scene: (frame, object, label, x, y) rows, with holes in between."""
    rows = []
    for k in range(objects):
        begin = rng.integers(0, frames - 6)
        end = rng.integers(begin + 4, frames)
        place, step = rng.uniform(-35, 35, 2), rng.normal(0, 1, 2)
        label = rng.integers(0, classes)
        rows += [
            (t, k, label, *(place + step * (t - begin))) for t in range(begin, end) if rng.random() > 0.12
        ]
    return sorted(rows)


def tracked(rng, rows):
    """What a tracker makes of them: noise, misses, tracks that change over, false ones; (.., score) rows."""
    found = []
    changes = {k: rng.integers(2, 30) for k in {row[1] for row in rows}}
    for t, k, label, x, y in rows:
        if rng.random() > 0.15:
            track = k if t < changes[k] else k + 1000 + (k % 2)  # even ones change over, some meet another
            score = 0.2 + 0.7 * ((k * 7919) % 97) / 97 + 0.05 * rng.random()
            found.append((t, track, label, x + rng.normal(0, 0.6), y + rng.normal(0, 0.6), score))
    for k in range(12):
        label, place, begin = rng.integers(0, 5), rng.uniform(-35, 35, 2), rng.integers(0, 20)
        found += [
            (t, 5000 + k, label, *(place + 0.3 * t), 0.1 + 0.5 * rng.random())
            for t in range(begin, begin + 8)
        ]
    unique = {(row[0], row[1]): row for row in found}  # a track once a frame
    return sorted(unique.values())


def test_amota_is_that_of_the_nuscenes_devkit(tmp_path, run_devkit):
    rng = np.random.default_rng(7)
    names, frames = nuscenes_rules.TRACKING_CLASSES, 40
    tree, scenes, samples, truth, results, times = {}, {}, {}, [], [], []
    for s in range(5):
        rows = walks(rng, frames, 40, 6)  # trucks are absent
        found = tracked(rng, [row for row in rows if row[2] != 3])  # motorcycles are not found
        time = np.cumsum(rng.integers(400_000, 600_000, frames))  # microseconds
        scenes[f"scene{s}"] = [f"{s}-{t}" for t in range(frames)]
        truth.append([]), results.append([]), times.append(time.tolist())
        for t in range(frames):
            here = np.array([row[1:] for row in rows if row[0] == t]).reshape(-1, 4)
            there = np.array([row[1:] for row in found if row[0] == t]).reshape(-1, 5)
            boxes, shown = (np.tile([0.0, 0, 0, 4, 2, 1.5, 0], (len(part), 1)) for part in (here, there))
            boxes[:, :2], shown[:, :2] = here[:, 2:4], there[:, 2:4]
            labels, classes = here[:, 1].astype(int), there[:, 1].astype(int)
            truth[-1].append(FrameBoxes(boxes, labels, tracks=here[:, 0].astype(int)))
            results[-1].append(FrameBoxes(shown, classes, there[:, 4], tracks=there[:, 0].astype(int)))
            token = f"{s}-{t}"
            tree[token] = {
                "ego": [0, 0, 0],
                "racks": [],
                "scene": f"scene{s}",
                "timestamp": int(time[t]),
                "boxes": [
                    as_json(box)
                    | {
                        "sample_token": token,
                        "velocity": [0, 0],
                        "num_pts": 1,
                        "tracking_id": f"{s}/{int(row[0])}",
                        "tracking_name": names[int(row[1])],
                        "tracking_score": -1.0,
                    }
                    for box, row in zip(boxes, here, strict=True)
                ],
            }
            ids = np.array([f"{s}/{int(row[0])}" for row in there], dtype=np.str_)
            samples[token] = SampleBoxes(
                shown, np.zeros((len(shown), 2)), np.array(names)[classes], there[:, 4], ids
            )
            order = np.argsort(-there[:, 4], kind="stable")  # as they are written
            results[-1][-1] = results[-1][-1].select(order)
    (tmp_path / "truth.json").write_text(json.dumps({"samples": tree, "scenes": scenes}))
    write_results(tmp_path / "results.json", "tracking", samples)
    theirs = run_devkit("nuscenes_tracking", tmp_path)

    near = [
        [[nuscenes_rules.countable(frame, names) for frame in frames] for frames in part]
        for part in (truth, results)
    ]
    ours = tracking.evaluate(*near, names, times)
    assert 0.1 < ours.amota < 0.9 and ours.total("switches") > 5
    keys = {
        "amota": "amota", "amotp": "amotp", "recall": "recall", "motar": "motar", "mota": "mota",
        "motp": "motp", "true_positives": "tp", "false_positives": "fp", "misses": "fn", "switches": "ids",
        "fragments": "frag", "mostly_tracked": "mt", "mostly_lost": "ml", "false_alarms": "faf",
        "first_seconds": "tid", "gap_seconds": "lgd", "count": "gt",
    }  # fmt: skip
    pairs = {name: (ours.total(name), theirs[key]) for name, key in keys.items() if name != "count"}
    for score in ours.classes:
        for name, key in keys.items():
            value = theirs["label_metrics"][key].get(score.class_name, math.nan)
            if score.count or name != "count":
                pairs[score.class_name, name] = getattr(score, name), value
    gaps = {key: 0.0 if math.isnan(a) and math.isnan(b) else abs(a - b) for key, (a, b) in pairs.items()}
    worst = max(gaps, key=lambda key: gaps[key])
    print(f"largest difference of {len(pairs)} numbers: {gaps[worst]:.1e} ({worst})")
    assert gaps[worst] < 1e-6, pairs[worst]  # the kit's distances are differences of squares
