"""Runs the evaluation code of nuscenes-devkit and av2 on what a test wrote, and writes the numbers.

Usage: run_devkits.py nuscenes_detection|nuscenes_tracking|nuscenes_frames|argoverse2 FOLDER. This file is run
by an interpreter that has these packages: it imports nothing of sparse3d.
"""

import json
import sys
from pathlib import Path


class Tables:
    """As much of a nuScenes database as the evaluation asks for, from the test's truth.json."""

    def __init__(self, truth):
        self.samples = truth["samples"]
        self.scenes = truth.get("scenes", {})

    def get(self, table, token):
        if table == "sample":
            sample = self.samples[token]
            scene = sample.get("scene")
            order = self.scenes.get(scene, [])
            after = order[order.index(token) + 1] if token in order and token != order[-1] else ""
            return {
                "data": {"LIDAR_TOP": token},
                "anns": [f"{token}/{i}" for i in range(len(sample["racks"]))],
                "scene_token": scene,
                "timestamp": sample.get("timestamp"),
                "next": after,
            }
        if table == "sample_data":
            return {"ego_pose_token": token}
        if table == "ego_pose":
            return {"translation": self.samples[token]["ego"]}
        if table == "scene":
            order = self.scenes[token]
            return {"name": token, "first_sample_token": order[0], "last_sample_token": order[-1]}
        assert table == "sample_annotation"
        sample, i = token.split("/")
        return self.samples[sample]["racks"][int(i)] | {"category_name": "static_object.bicycle_rack"}


def load_boxes(folder, box_class):
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.loaders import add_center_dist

    truth = json.loads((folder / "truth.json").read_text())
    results = json.loads((folder / "results.json").read_text())["results"]
    tables = Tables(truth)
    boxes = {token: sample["boxes"] for token, sample in truth["samples"].items()}
    loaded = [EvalBoxes.deserialize(part, box_class) for part in (boxes, results)]
    return tables, *(add_center_dist(tables, part) for part in loaded)


def nuscenes_detection(folder):
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import filter_eval_boxes
    from nuscenes.eval.detection.data_classes import DetectionBox
    from nuscenes.eval.detection.evaluate import DetectionEval

    tables, truth, found = load_boxes(folder, DetectionBox)
    judge = DetectionEval.__new__(DetectionEval)  # its constructor wants the whole data set
    judge.cfg = config_factory("detection_cvpr_2019")
    judge.verbose = False
    judge.gt_boxes = filter_eval_boxes(tables, truth, judge.cfg.class_range)
    judge.pred_boxes = filter_eval_boxes(tables, found, judge.cfg.class_range)
    counts = [len(judge.gt_boxes.all), len(judge.pred_boxes.all)]
    metrics, _ = judge.evaluate()
    return metrics.serialize() | {"counts": counts}


def nuscenes_tracking(folder):
    import numpy as np
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import filter_eval_boxes
    from nuscenes.eval.tracking import loaders
    from nuscenes.eval.tracking.data_classes import TrackingBox
    from nuscenes.eval.tracking.evaluate import TrackingEval

    np.warnings = __import__("warnings")
    judge = TrackingEval.__new__(TrackingEval)
    judge.cfg = config_factory("tracking_nips_2019")  # sets class attributes that boxes check
    judge.verbose, judge.output_dir, judge.render_classes = False, str(folder), []
    tables, truth, found = load_boxes(folder, TrackingBox)
    loaders.get_scenes_of_split = lambda split_name, nusc: list(tables.scenes)
    judge.tracks_gt, judge.tracks_pred = (
        loaders.create_tracks(filter_eval_boxes(tables, part, judge.cfg.class_range), tables, "val", gt=gt)
        for part, gt in ((truth, True), (found, False))
    )
    metrics, _ = judge.evaluate()
    return metrics.serialize()


def argoverse2(folder):
    import pandas
    from av2.evaluation.detection import eval as av2_eval
    from av2.evaluation.detection.utils import DetectionCfg

    truth, found = (
        pandas.read_json(folder / f"{name}.json", dtype=False, precise_float=True)
        for name in ("truth", "results")
    )
    cfg = DetectionCfg(eval_only_roi_instances=False)
    found, truth, _ = av2_eval.evaluate(found, truth, cfg, n_jobs=1)
    exact = av2_eval.summarize_metrics(found, truth, cfg)  # `evaluate` rounds to three digits
    counts = [int(truth["is_evaluated"].sum()), int(found["is_evaluated"].sum())]
    return {"classes": exact.to_dict(orient="index"), "mean": exact.mean().to_dict(), "counts": counts}


def nuscenes_frames(folder):
    """What the development kit makes of a release: points of ten sweeps, boxes and velocities in the frame of
    the LiDAR, to `frames.npz`."""
    import numpy as np
    from nuscenes import NuScenes
    from nuscenes.utils.data_classes import LidarPointCloud

    release = NuScenes("v1.0-mini", str(folder), verbose=False)
    arrays = {}
    for sample in release.sample:
        points, lags = LidarPointCloud.from_file_multisweep(release, sample, "LIDAR_TOP", "LIDAR_TOP", 10)
        _, boxes, _ = release.get_sample_data(sample["data"]["LIDAR_TOP"])
        rows = []
        for box in boxes:
            box.velocity = release.box_velocity(box.token)
            rows.append([*box.center, *box.wlh, *box.orientation.rotation_matrix[:, 0], *box.velocity])
        token = sample["token"]
        arrays[f"points {token}"] = np.concatenate([points.points, lags]).T
        arrays[f"boxes {token}"] = np.array(rows)
        arrays[f"names {token}"] = np.array([box.name for box in boxes])
    np.savez(folder / "frames.npz", **arrays)
    return {"frames": len(release.sample)}


if __name__ == "__main__":
    tool, folder = sys.argv[1], Path(sys.argv[2])
    numbers = globals()[tool](folder)
    (folder / "numbers.json").write_text(json.dumps(numbers))
