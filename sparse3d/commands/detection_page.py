"""`sparse3d evaluate --analyse`: the errors of a detector as one page of HTML that needs nothing else."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sparse3d.data.labelled import LabelledFrames
from sparse3d.data.open import DataConfig
from sparse3d.evaluation.error_analysis import CAUSES, TRUE, Analysis, Bin, ClassAnalysis, analyse
from sparse3d.frames import LidarFrame
from sparse3d.io.files import write_text
from sparse3d.recipes.detection_judge import JudgedFrame, Judgement
from sparse3d.viewers.bev import BevStyle, draw_bev
from sparse3d.viewers.charts import bar_chart, heat_table, histogram, line_chart, round_up

WORST_FRAMES = 20
_PICTURE = 640  # pixels of a picture's longer side
_OUTCOMES = ("found", "false", "missed")
# For a white page, apart in hue and lightness; classes take them in turn.
_COLORS = ("#1f6fb4", "#d1495b", "#2e933c", "#8f5fbf", "#c7822a", "#2a9d9d", "#7a5c44", "#5f6b7a")
_CAUSE_COLORS: dict[str, str] = dict(zip(CAUSES, ("#8d99ae", "#e09f3e", "#9e2a2b", "#335c67"), strict=True))
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222933;max-width:1320px;margin:24px auto;padding:0 20px}
h1{font-size:24px}h2{font-size:19px;margin-top:36px;border-bottom:1px solid #dde1e8}
svg{width:540px;max-width:100%;font:11px system-ui,sans-serif}
table{border-collapse:collapse;font-size:14px}
th,td{padding:3px 10px;text-align:right;border:1px solid #dde1e8}
pre{font-size:12px;overflow-x:auto;background:#f5f6f8;padding:12px}
.row{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0}figcaption{font-size:13px;margin-bottom:10px}
img{max-width:100%;border-radius:4px}
"""


def write_page(
    path: Path, judgement: Judgement, dataset: LabelledFrames[DataConfig], bounds: Sequence[float], title: str
) -> Analysis:
    """Write the page of a judgement of this data set; pictures show the model's `bounds`."""
    truth, found = [frame.truth for frame in judgement.frames], [frame.found for frame in judgement.frames]
    analysis = analyse(truth, found, judgement.class_names)
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _summary(analysis, judgement),
        _curves(analysis),
        _causes(analysis),
        _errors(analysis),
        _worst(analysis, judgement.frames, dataset, bounds),
    ]
    tables = "".join(_as_text(table) for table in judgement.tables())
    sections.append(f"<h2>What the metrics say</h2><pre>{html.escape(tables)}</pre>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(sections)
    write_text(path, f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n')
    return analysis


def _summary(analysis: Analysis, judgement: Judgement) -> str:
    heads = ("class", "IoU", "labels", "AP", "score threshold", "found", "missed", *CAUSES)
    lines = ["".join(f"<th>{name}</th>" for name in heads)]
    for part in analysis.classes:
        cells = (
            f"{part.min_overlap:g}",
            str(part.count),
            _percent(part.ap),
            f"{part.threshold:.2f}" if np.isfinite(part.threshold) else "-",
            str(part.true_positives),
            str(part.count - part.true_positives),
            *map(str, part.causes),
        )
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<th>{html.escape(part.class_name)}</th>{row}")
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    words = (
        f"{len(judgement.frames)} frames. Labels are those that the model can be asked for: with a point, "
        "within its bounds and, where a camera says what is labelled, in its image. Counts are at the score "
        "threshold of each class where its F1 is greatest; a detection has found a label from the volume IoU "
        "of its class on. The last columns count false detections by their cause."
    )
    return f"<p>{words}</p><table>{table}</table>"


def _curves(analysis: Analysis) -> str:
    parts, colors = analysis.classes, _colors(analysis.classes)
    lines = {part.class_name: (part.recall, part.precision) for part in parts if part.count}
    charts = [line_chart("precision against recall", lines, colors, ("recall", "precision"))]
    for what, unit, bins, whole in (
        ("distance", "metres", [part.by_distance for part in parts], False),
        ("points", "points in the box", [part.by_points for part in parts], True),
        ("occlusion", "level, from 0, hardly hidden, to 3", [part.by_occlusion for part in parts], True),
    ):
        for title, value in (("average precision", "ap"), ("share found", "recall")):
            groups = [_range(b, whole) for b in bins[0]]
            bars = {
                part.class_name: [getattr(b, value) for b in row]
                for part, row in zip(parts, bins, strict=True)
            }
            if groups:
                charts.append(bar_chart(f"{title} by {what}", groups, bars, colors, (unit, title)))
    words = (
        "What is found is counted at the score thresholds above. By distance a false detection counts where "
        "it stands; by points and by occlusion each one counts in every bin, so that a bin of few labels has "
        "a low average precision."
    )
    return f'<h2>How good</h2><p>{words}</p><div class="row">{"".join(charts)}</div>'


def _range(b: Bin, whole: bool) -> str:
    """A bin in words; of whole numbers the last one that is in it."""
    if not np.isfinite(b.high):
        return f">{b.low - whole:g}"
    return f"{b.low:g}" if whole and b.high == b.low + 1 else f"{b.low:g}-{b.high - whole:g}"


def _causes(analysis: Analysis) -> str:
    parts = analysis.classes
    names = [part.class_name for part in parts]
    bars = {cause: [float(part.causes[i]) for part in parts] for i, cause in enumerate(CAUSES)}
    highest = round_up(max(5.0, *(max(values) for values in bars.values())))
    labels = ("class of the detection", "detections")
    chart = bar_chart("false detections by cause", names, bars, _CAUSE_COLORS, labels, highest)
    table = heat_table([*names, "nothing"], [*names, "nothing"], analysis.confusion, "label / detected as")
    return f'<h2>What is confused</h2><div class="row">{chart}<div>{table}</div></div>'


def _errors(analysis: Analysis) -> str:
    colors = _colors(analysis.classes)
    charts = []
    for title, field, label, limit in (
        ("distance of the centres", "shift", "metres, seen from above", 1.0),
        ("error of the size", "size", "1 - IoU of the sizes", 0.5),
        ("error of the heading", "turn", "radians", float(np.pi)),
    ):
        values = {part.class_name: getattr(part, field) for part in analysis.classes if part.true_positives}
        charts.append(histogram(title, values, colors, label, limit))
    return f'<h2>Errors of what was found</h2><div class="row">{"".join(charts)}</div>'


def _worst(
    analysis: Analysis,
    frames: Sequence[JudgedFrame],
    dataset: LabelledFrames[DataConfig],
    bounds: Sequence[float],
) -> str:
    figures = []
    for i in analysis.worst(WORST_FRAMES):
        shown = dataset[i]
        counts = {cause: 0 for cause in CAUSES}
        causes = analysis.frames[i].cause[analysis.shown[i]]
        for cause in causes[causes != TRUE]:
            counts[CAUSES[cause]] += 1
        words = [f"{n} {cause}" for cause, n in counts.items() if n]
        words.append(f"{int(analysis.missed[i].sum())} missed of {len(analysis.missed[i])}")
        picture = picture_of_errors(shown, frames[i], analysis, i, bounds)
        name = html.escape(frames[i].frame_id)
        caption = f"<figcaption><b>{name}</b>: {', '.join(words)}</figcaption>"
        figures.append(f'<figure><img alt="{name}" src="data:image/png;base64,{picture}">{caption}</figure>')
    what = "<p>Detections that found a label, false ones, and labels that were missed; all from above.</p>"
    nothing = "<p>Every frame is perfect.</p>"
    return f'<h2>The worst frames</h2>{what}<div class="row">{"".join(figures) or nothing}</div>'


def picture_of_errors(
    shown: LidarFrame, frame: JudgedFrame, analysis: Analysis, index: int, bounds: Sequence[float]
) -> str:
    """A PNG, as base64 text: the scan from above with what was found, falsely found and missed."""
    errors, seen, missed = analysis.frames[index], analysis.shown[index], analysis.missed[index]
    true, false = seen & (errors.cause == TRUE), seen & (errors.cause != TRUE)
    assert frame.found.scores is not None
    groups = (frame.found.boxes[true], frame.found.boxes[false], frame.truth.boxes[missed])
    scores = np.concatenate([frame.found.scores[true], frame.found.scores[false], np.ones(missed.sum())])
    longest = max(bounds[3] - bounds[0], bounds[4] - bounds[1])
    image = draw_bev(
        shown.points,
        bounds,
        boxes=np.concatenate(groups),
        labels=np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        scores=scores,
        class_names=_OUTCOMES,
        style=BevStyle(pixels_per_metre=_PICTURE / longest, show_scores=False, font_size=11),
    )
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _colors(classes: Sequence[ClassAnalysis]) -> dict[str, str]:
    return {part.class_name: _COLORS[i % len(_COLORS)] for i, part in enumerate(classes)}


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def _as_text(table: Table) -> str:
    console = Console(width=150, file=io.StringIO(), force_terminal=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
