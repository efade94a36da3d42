"""A trained field teaches one of another kind, without photos, and is compared with it.

`sparse3d.fields.distillation` says what is learnt at points, `lessons` what a step sees; the training itself
is that of `reconstruct`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparse3d import config as configs
from sparse3d.data.photos import Photo
from sparse3d.geometry.cameras import Camera
from sparse3d.nn.threads import one_torch_thread
from sparse3d.recipes.conversion.views import ring
from sparse3d.recipes.radiance.config import RadianceConfig, RadianceEvaluationConfig, Vector
from sparse3d.recipes.radiance.judge import (
    Outcome,
    Progress,
    Shown,
    judge_views,
    render_view,
    write_views,
)
from sparse3d.recipes.radiance.lessons import dense_cells
from sparse3d.recipes.radiance.reconstruct import load_field
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.tasks import task_of_run

# Steps of a student with a method's own config: one to three minutes on two cores. Points teach it in seconds
# what photos tell much later.
STEPS = {"voxels": 600, "hash": 600, "lowrank": 600, "nerf": 600, "volsdf": 1000}
VIEWS, PIXELS = 8, 100  # that a student is judged by
WHITE: Vector = (1.0, 1.0, 1.0)
SPLIT = "teacher"  # the folder of the comparison, beside those of photos


def student_config(teacher: str | Path, source: str | Path, overrides: Sequence[str] = ()) -> RadianceConfig:
    """The config `source` for a student of the run `teacher`; a method's own, by its name, with STEPS.
    ConfigError for a config that is not of a field, ValueError for a teacher that is none."""
    if (name := task_of_run(teacher, "render").name) != "radiance":
        raise ValueError(f"{teacher} is a run of {name}; only fields teach: {', '.join(STEPS)}")
    changes = [f"distillation.source={teacher}"]
    changes += [f"train.steps={STEPS[source]}"] if isinstance(source, str) and source in STEPS else []
    return configs.load(RadianceConfig, source, [*changes, *overrides])


def judge_by_teacher(run: str | Path, progress: Progress | None = None) -> Outcome:
    """How far the pictures of a student are from its teacher's, over views around what the teacher shows;
    writes `evaluation/teacher` as `reconstruct.judge` does of photos."""
    student = load_field(run)
    distillation = student.config.distillation
    if distillation is None:
        raise ValueError(f"{run} was trained on photos; it has no teacher")
    teacher = load_field(distillation.source, distillation.checkpoint)
    space, config = teacher.field.config.space, RadianceEvaluationConfig()
    cells = dense_cells(teacher.field, distillation)[0]
    ends = (cells.min(0), cells.max(0) + 1)
    low, high = (np.array(space.low) + end * (space.side / distillation.cells) for end in ends)

    def taught(camera: Camera) -> Photo:
        color, depth, opacity = render_view(teacher.field, camera, WHITE, config)
        return Photo(np.clip(color, 0, 1), None, None, np.where(opacity > 0.5, depth, np.nan))

    def show(camera: Camera) -> Shown:
        return Shown(*render_view(student.field, camera, WHITE, config))

    cameras = ring(low, high, VIEWS, PIXELS)
    wanted = ((f"{number:02d}", taught(camera), camera) for number, camera in enumerate(cameras))
    with one_torch_thread():
        views = judge_views(show, wanted, VIEWS, WHITE, progress=progress)
        return write_views(RunFolder(run).evaluation / SPLIT, student.checkpoint, views)
