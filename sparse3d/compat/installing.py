"""Putting the stand-ins under the names that public code imports."""

import importlib
import importlib.util
import sys

HERE = "sparse3d.compat."
SPCONV = (
    "spconv",
    "spconv.constants",
    "spconv.core",
    "spconv.pytorch",
    "spconv.pytorch.conv",
    "spconv.pytorch.convolution",
    "spconv.pytorch.core",
    "spconv.pytorch.functional",
    "spconv.pytorch.identity",
    "spconv.pytorch.modules",
    "spconv.pytorch.ops",
    "spconv.pytorch.pool",
    "spconv.pytorch.tables",
    "spconv.pytorch.utils",
    "spconv.utils",
)
CUMM = ("cumm", "cumm.tensorview")


def install(replace: bool = False) -> None:
    """Make `import spconv` and its submodules give sparse3d's stand-in in this process, from now on.

    cumm, which spconv's users import for `tensorview.from_numpy`, is stood in for when it is not installed.
    Raises an ImportError when the real spconv is imported already: its classes may be in use, and a network
    made of both would fail late. `replace=True` goes ahead; modules that hold the real one keep it.
    """
    real = _imported("spconv")
    if real and not replace:
        raise ImportError(
            f"the real spconv is imported already ({', '.join(real[:3])}{', ...' if len(real) > 3 else ''}); "
            "call sparse3d.compat.install() before anything imports it, or install(replace=True) to stand in "
            "for it anyway"
        )
    for name in real:
        del sys.modules[name]
    names: list[str] = list(SPCONV)
    if importlib.util.find_spec("cumm") is None:
        names += CUMM
    for name in names:
        sys.modules[name] = importlib.import_module(HERE + name)


def uninstall() -> None:
    """Take the stand-in out of `sys.modules` again; modules that imported it keep it."""
    for name in (*SPCONV, *CUMM):
        if name in sys.modules and sys.modules[name].__name__ == HERE + name:
            del sys.modules[name]


def _imported(package: str) -> list[str]:
    """Modules of the real package that are in this process."""
    return sorted(
        name
        for name, module in sys.modules.items()
        if (name == package or name.startswith(package + "."))
        and not getattr(module, "__name__", "").startswith(HERE)
    )
