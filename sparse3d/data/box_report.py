"""What a check of a data set with boxes finds."""

from dataclasses import dataclass, field
from pathlib import Path

# Lines of one kind that a report prints; the rest is counted.
_SHOWN = 10


@dataclass(frozen=True)
class BoxReport:
    """What a check found. `problems` make frames unusable or wrong; `notes` are odd but harmless."""

    root: Path
    splits: dict[str, int] = field(default_factory=dict)  # frames a split
    points: int = 0
    objects: dict[str, int] = field(default_factory=dict)  # labelled objects a class
    empty_boxes: dict[str, int] = field(default_factory=dict)  # of them, without a single point
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether training and evaluation can use every frame."""
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"{self.root}: " + (", ".join(f"{k} {v} frames" for k, v in self.splits.items()) or "no split")
        ]
        lines.append(f"{self.points} points")
        for name, count in sorted(self.objects.items(), key=lambda item: -item[1]):
            empty = self.empty_boxes.get(name, 0)
            lines.append(f"{name}: {count}" + (f", {empty} of them without points" if empty else ""))
        for title, items in (("problem", self.problems), ("note", self.notes)):
            lines += [f"{title}: {item}" for item in items[:_SHOWN]]
            if len(items) > _SHOWN:
                lines.append(f"{title}: {len(items) - _SHOWN} more")
        return "\n".join([*lines, "ok" if self.ok else f"{len(self.problems)} problems"])
