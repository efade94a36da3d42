"""The site: it builds without a warning, needs nothing from the network, and shows what stands elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest

from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """tools/docs_site.py, which MkDocs imports by its path."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed: pip install 'sparse3d[docs]'")
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools/docs_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(hooks, tmp_path_factory):
    """The pages, built as `make docs` does it."""
    pytest.importorskip("material", reason="its theme is not installed: pip install 'sparse3d[docs]'")
    pytest.importorskip("mkdocstrings_handlers.python", reason="pip install 'sparse3d[docs]'")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        # Not --quiet, with which MkDocs counts no warnings.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = re.findall(
            r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\"\s>]+)|"
            r"<link\b(?=[^>]*rel=\"?(?:stylesheet|preconnect|icon))[^>]*href=\"?(https?:[^\"\s>]+)",
            page.read_text(encoding="utf-8"),
        )
        assert not fetched, f"{page.relative_to(site)}: {fetched}"


@pytest.mark.slow
def test_every_package_and_its_public_names_have_a_page(site):
    for package in (ROOT / "sparse3d").glob("*/__init__.py"):
        name = package.parent.name
        assert (site / f"api/sparse3d.{name}.html").is_file() == (name != "commands")
    for page, name in (
        ("sparse3d", "sparse3d.tensor.SparseTensor.from_dense"),
        ("sparse3d_ops", "sparse3d_ops.segment.segment_sum"),
        ("sparse3d.nn", "sparse3d.nn.conv.SubMConv3d"),
        ("sparse3d.gaussians", "sparse3d.gaussians.render.SplatConfig"),
    ):
        assert f'id="{name}"' in (site / f"api/{page}.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_text_from_elsewhere_is_shown_with_its_links_and_pictures(site):
    models = (site / "models.html").read_text(encoding="utf-8")
    assert "VoxelBackBone8x" in models and "centerpoint_minidrive" in models
    assert "{{" not in models
    assert 'src="images/three_spheres.png"' not in models  # it stands under another heading
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "bit-repeatable" in index and 'src="images/detections.png"' in index
    assert 'href="contributing.html"' in index and (site / "contributing.html").is_file()
    demos = (site / "demos.html").read_text(encoding="utf-8")
    for folder in (ROOT / "demos").glob("*/run.py"):
        assert f'id="{folder.parent.name}"' in demos, f"docs/demos.md does not show {folder.parent.name}"
    for picture in re.findall(r'<img [^>]*src="([^"]+)"', demos):
        assert (site / picture).is_file(), picture


def test_a_section_ends_where_the_next_one_begins(hooks):
    text = "# T\na\n## One\nb\n### Deep\nc\n```sh\n# no heading\n```\n## Two\nd\n"
    assert hooks.section(text, "One") == "b\n### Deep\nc\n```sh\n# no heading\n```"
    assert hooks.section(text, "Deep") == "c\n```sh\n# no heading\n```"
    assert hooks.section(text, "Two") == "d"
    assert hooks.section(text, None).startswith("a\n## One")
    with pytest.raises(ValueError, match="no such heading"):
        hooks.section(text, "Three")


def test_links_of_other_files_lead_where_the_site_has_them(hooks):
    class Files:
        def get_file_from_path(self, path):
            return path if path in ("spconv.md", "benchmarks.md", "images/a.png", "demos/x/p.png") else None

    def relinked(text, folder="", page="models.md"):
        return hooks.relinked(text, folder, page, Files())

    assert relinked("[s](docs/spconv.md) [b](BENCHMARKS.md#x)") == "[s](spconv.md) [b](benchmarks.md#x)"
    assert relinked("![p](picture.png)", "demos/x") == "p"  # the site has no such file
    assert relinked("![p](p.png)", "demos/x") == "![p](demos/x/p.png)"
    assert relinked("![a](../../docs/images/a.png)", "demos/x", "deep/y.md") == "![a](../images/a.png)"
    assert relinked("[LICENSE](LICENSE) [it](LICENSE)") == "`LICENSE` it"
    assert relinked("[w](https://x.org/a.md) [h](#here)") == "[w](https://x.org/a.md) [h](#here)"
