"""The pages that people read, taken apart into their blocks of code and lines of commands."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "BENCHMARKS.md", "datasets/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("demos/*/README.md")),
)
_NEEDS = re.compile(r"<!-- needs: (\w+) -->")


@dataclass(frozen=True)
class Block:
    """What stands in a fence. `line`: of its first row in the file, from 1. `needs`: a module without which
    it cannot run, as a comment right above the fence says."""

    language: str
    text: str
    line: int
    needs: str | None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line that calls sparse3d, comments left out; a backslash joins lines."""
        if self.language == "python":
            return []
        return [words for line in self.text.replace("\\\n", " ").splitlines() if (words := _words(line))]


def _words(line: str) -> list[str]:
    """What follows `sparse3d` or `-m sparse3d` in a line of shell; nothing where neither is there."""
    if "sparse3d" not in line:
        return []
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose with an apostrophe
        return []
    if words[:1] == ["sparse3d"]:
        return words[1:]
    pairs = list(zip(words, words[1:], strict=False))
    return words[pairs.index(("-m", "sparse3d")) + 2 :] if ("-m", "sparse3d") in pairs else []


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    language, begin, rows, needs, above = "", 0, [], None, ""
    for number, row in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if row.startswith("```") and not begin:
            language, begin, rows = row[3:].strip(), number + 1, []
            comment = _NEEDS.fullmatch(above)
            needs = comment[1] if comment else None
        elif row == "```":
            found.append(Block(language, "\n".join(rows) + "\n", begin, needs))
            begin = 0
        elif begin:
            rows.append(row)
        above = row or above
    assert not begin, f"{page}: the fence before line {begin} has no end"
    return found


def inline_commands(page: Path) -> list[list[str]]:
    """The words of each `sparse3d ...` within the text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [words for code in re.findall(r"`([^`\n]+)`", text) if (words := _words(code))]
