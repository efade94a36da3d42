"""What mkdocs.yml asks for while the site is built: pages that are made, and text that stands elsewhere.

- A line `{{ PATH }}` or `{{ PATH # Heading }}` in a page becomes that file of the repository (without its
  title), or what stands under one of its headings: said once, shown twice. Headings within move below the
  one that they are shown under.
- Links of such text lead where the site has the file; the pictures that it shows are taken along.
- The API reference has a page for each package, found in the source, in the order of the floors.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Pages under other names than their files have. What the site lacks is only named, not linked.
PAGES = {
    "README.md": "index.md",
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "datasets/README.md": "datasets.md",
}
# Modules that stand beside the packages, on one page.
ROOT_MODULES = ("tensor", "sites", "frames", "config", "errors")
ORDER = ("ops", "nn", "geometry", "mesh", "io", "data", "models", "fields", "gaussians", "fusion")
_INCLUDE = re.compile(r"^\{\{ (?P<path>[^#}]+?)(?: # (?P<heading>[^}]+?))? \}\}$", re.MULTILINE)
_HEADING = re.compile(r"(#+) (.*)")
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_IMAGE = re.compile(r'<img src="([^"]+)"')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The API reference comes last in the navigation."""
    assert config.nav is not None
    # Twice in one process `mkdocs serve` comes here with what it has made before.
    config.nav = [entry for entry in config.nav if "API reference" not in entry]
    pages = [{name: f"api/{name}.md"} for name in packages()]
    config.nav.append({"API reference": ["api/index.md", *pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages of the API, and the pictures of text from elsewhere."""
    files.append(File.generated(config, "api/index.md", content=_overview()))
    for name, modules in packages().items():
        parts = [f"::: {module}" + ("" if name != "sparse3d" else _BESIDE) for module in modules]
        text = f"# {name}\n\n" + "\n\n".join(parts) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    for picture in sorted(ROOT.glob("demos/*/*.png")) + sorted(ROOT.glob("demos/*/*.webp")):
        uri = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(picture)))
    return files


# Several modules on one page stand under their names.
_BESIDE = (
    "\n    options:\n      show_root_heading: true\n      show_root_toc_entry: true\n      heading_level: 2\n"
)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what `{{ ... }}` names."""

    def put(found: re.Match[str]) -> str:
        path = found["path"]
        try:
            text = section((ROOT / path).read_text(encoding="utf-8"), found["heading"])
        except (OSError, ValueError) as error:
            raise PluginError(f"{page.file.src_uri}: {found[0]}: {error}") from error
        above = _level_at(markdown, found.start())
        return relinked(_nested(text, above), posixpath.dirname(path), page.file.src_uri, files)

    return _INCLUDE.sub(put, markdown)


def packages() -> dict[str, tuple[str, ...]]:
    """The pages of the API reference: their names, and the modules that each shows."""
    found = sorted(path.parent.name for path in (ROOT / "sparse3d").glob("*/__init__.py"))
    found = sorted((name for name in found if name != "commands"), key=_rank)
    pages = {
        "sparse3d": tuple(f"sparse3d.{name}" for name in ROOT_MODULES),
        "sparse3d_ops": ("sparse3d_ops",),
    }
    return pages | {f"sparse3d.{name}": (f"sparse3d.{name}",) for name in found}


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def _overview() -> str:
    """A table of the packages, with the first sentence of each."""
    rows = ["# API reference\n", "Every public name with its docstring, a page a package.\n"]
    rows += ["| package | what |", "|---|---|"]
    for name, modules in packages().items():
        path = ROOT / ("ops" if name == "sparse3d_ops" else ".") / name.replace(".", "/") / "__init__.py"
        said = re.match(r'"""(.+?)(?:\n\n|""")', path.read_text(encoding="utf-8"), re.DOTALL)
        what = " ".join(said[1].split()) if said else ""
        inside = f" ({', '.join(f'`{m}`' for m in ROOT_MODULES)})" if len(modules) > 1 else ""
        rows.append(f"| [`{name}`]({name}.md) | {what}{inside} |")
    return "\n".join(rows) + "\n"


def section(text: str, heading: str | None) -> str:
    """What stands under a heading, up to the next one as high; a whole file without its title. ValueError
    for a heading that is not there."""
    lines, fenced = text.splitlines(), False
    begin = level = None
    for number, line in enumerate(lines):
        fenced ^= line.startswith("```")
        found = None if fenced else _HEADING.fullmatch(line)
        if not found:
            continue
        if begin is not None:
            assert level is not None
            if heading is not None and len(found[1]) <= level:
                return "\n".join(lines[begin:number])
        elif heading is None or found[2] == heading:
            begin, level = number + 1, len(found[1])
    if begin is None:
        raise ValueError("there is no such heading" if heading else "there is no title")
    return "\n".join(lines[begin:])


def _nested(text: str, above: int) -> str:
    """With headings one level below `above` and deeper."""
    lines, fenced, highest = text.splitlines(), False, None
    levels: dict[int, int] = {}
    for number, line in enumerate(lines):
        fenced ^= line.startswith("```")
        found = None if fenced else _HEADING.fullmatch(line)
        if found:
            levels[number] = len(found[1])
    highest = min(levels.values(), default=1)
    for number, level in levels.items():
        lines[number] = "#" * (level - highest + above + 1) + lines[number].lstrip("#")
    return "\n".join(lines)


def _level_at(markdown: str, place: int) -> int:
    """Level of the last heading before a place of a page, 1 where there is none."""
    above = [len(found[1]) for found in map(_HEADING.fullmatch, markdown[:place].splitlines()) if found]
    return above[-1] if above else 1


def relinked(text: str, folder: str, page: str, files: Files) -> str:
    """Links of a text in `folder` of the repository, as they are on a page of the site. A file that the site
    lacks keeps its name alone."""

    def target(link: str) -> str | None:
        path = posixpath.normpath(posixpath.join(folder, link))
        path = PAGES.get(path, path.removeprefix("docs/"))
        if path.endswith("/README.md") and path.startswith("demos/"):
            path = "demos.md"
        if files.get_file_from_path(path) is None:
            return None
        return posixpath.relpath(path, posixpath.dirname(page) or ".")

    def put(found: re.Match[str]) -> str:
        mark, words, link, anchor = found.groups()
        if not link or ":" in link:
            return found[0]
        there = target(link)
        if there is None:
            return f"`{posixpath.normpath(posixpath.join(folder, link))}`" if words == link else words
        return f"{mark}[{words}]({there}{anchor or ''})"

    text = _LINK.sub(put, text)
    return _IMAGE.sub(lambda found: f'<img src="{target(found[1]) or found[1]}"', text)
