"""YAML as a tree that remembers where each node came from: the lower half of `sparse3d.config`.

Scalars stay text until a field's type says what they are: YAML 1.1 would read `1e-3` as text, `No` as false
and `1:30` as ninety. Aliases and tags are refused; `base:` is the only way to share, and it names one parent.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from sparse3d.errors import ConfigError

# A wheel carries the configs inside of the package, a checkout beside it.
_HERE = Path(__file__).resolve().parent
COMMAND_LINE = "command line"
CONFIG_FOLDERS = (_HERE / "configs", _HERE.parent / "configs")
_PLAIN_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "value", "seq", "map")


@dataclass(frozen=True)
class Scalar:
    """Text as written; `quoted` text is never a number, a truth value or null."""

    text: str
    quoted: bool
    place: str

    @property
    def is_null(self) -> bool:
        return not self.quoted and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Items:
    """A list. Lists replace, never merge."""

    items: tuple["Node", ...]
    place: str


@dataclass(frozen=True)
class Mapping:
    """Keys in order of writing. `key_places` says where each key stands (`file:line` or `command line`)."""

    values: dict[str, "Node"]
    key_places: dict[str, str]
    place: str


Node = Scalar | Items | Mapping


def read_tree(path: Path) -> Mapping:
    """The tree of one file on top of its chain of `base:` parents; the `base` keys are gone."""
    return _read_chain(path, ())


def override_tree(override: str) -> Mapping:
    """`a.b=c` as a tree; the value is YAML."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"command line: cannot read '{override}'; write an override as key.subkey=value")
    node = _parse(text, COMMAND_LINE, lines=False)
    node = node if node is not None else Scalar("", False, COMMAND_LINE)
    for name in reversed(names):
        node = Mapping({name: node}, {name: COMMAND_LINE}, COMMAND_LINE)
    assert isinstance(node, Mapping)
    return node


def merge(base: Mapping, top: Mapping) -> Mapping:
    """`top` over `base`. Mappings merge unless `top` states another `kind`; everything else replaces."""
    if (
        "kind" in base.values
        and "kind" in top.values
        and not _same_scalar(base.values["kind"], top.values["kind"])
    ):
        return top
    values, places = dict(base.values), dict(base.key_places)
    for key, node in top.values.items():
        below = values.get(key)
        if isinstance(below, Mapping) and isinstance(node, Mapping):
            node = merge(below, node)
        values[key] = node
        places[key] = top.key_places[key]
    return Mapping(values, places, base.place if top.place == COMMAND_LINE else top.place)


def find_config(name: str | Path, beside: Path | None = None) -> Path:
    """The file of a config given by path (relative to `beside` or to the working folder) or by name.

    A name is a file's stem (`centerpoint_minidrive`) or its path below `configs/`
    (`detection/centerpoint_minidrive`).
    """
    for folder in ([beside] if beside else []) + [Path()]:
        path = folder / name
        if path.is_file():
            return path
    wanted = str(name).removesuffix(".yaml")
    shipped = dict(_shipped_configs())
    found = [path for key, path in shipped.items() if wanted in (key, path.stem)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(sorted(key for key, path in shipped.items() if path in found))
        raise ConfigError(f"the name '{name}' stands for several configs ({listed}); give the longer one")
    known = sorted({path.stem for path in shipped.values()})
    near = difflib.get_close_matches(Path(wanted).stem, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known configs: {', '.join(known) or 'none'}"
    raise ConfigError(f"no config '{name}': neither a file nor the name of a config; {hint}")


def config_names() -> list[str]:
    """Names of the configs that come with sparse3d, as `<task>/<model>_<dataset>`."""
    return sorted(dict(_shipped_configs()))


def _shipped_configs() -> Iterator[tuple[str, Path]]:
    for folder in CONFIG_FOLDERS:
        if folder.is_dir():
            for path in sorted(folder.rglob("*.yaml")):
                yield path.relative_to(folder).with_suffix("").as_posix(), path
            return


def _read_chain(path: Path, children: tuple[Path, ...]) -> Mapping:
    shown = shown_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{shown}: cannot read: {error.strerror}") from error
    node = _parse(text, shown, lines=True)
    if node is None:
        node = Mapping({}, {}, shown)
    if not isinstance(node, Mapping):
        raise ConfigError(f"{node.place}: a config is a mapping of keys to values, not {describe_node(node)}")
    base = node.values.get("base")
    if base is None:
        return node
    here = node.key_places["base"]
    if not isinstance(base, Scalar) or base.is_null:
        raise ConfigError(f"{here}: base names one parent config, got {describe_node(base)}")
    try:
        parent = find_config(base.text, beside=path.parent)
    except ConfigError as error:
        raise ConfigError(f"{here}: {error}") from error
    chain = (*children, path.resolve())
    if parent.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain[chain.index(parent.resolve()) :], parent))
        raise ConfigError(f"{here}: the bases form a cycle: {names}; remove one of them")
    without_base = replace(node, values={key: value for key, value in node.values.items() if key != "base"})
    return merge(_read_chain(parent, chain), without_base)


def _parse(text: str, source: str, lines: bool) -> Node | None:
    def place(mark: yaml.Mark | None) -> str:
        return f"{source}:{mark.line + 1}" if lines and mark is not None else source

    try:
        # compose builds nodes only; no constructor (and so no object of any tag) ever runs.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if root is None else _convert(root, place, set())
    except yaml.MarkedYAMLError as error:
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise ConfigError(f"{place(error.problem_mark)}: not valid YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None


def _convert(node: yaml.Node, place, seen: set[int]) -> Node:
    here = place(node.start_mark)
    # An alias is the same node met twice; refusing it also refuses loops and exponential growth.
    if id(node) in seen:
        raise ConfigError(
            f"{here}: YAML aliases (*name) are not supported; share through base: or write it twice"
        )
    seen.add(id(node))
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
        what = "merge keys (<<)" if node.tag.endswith(":merge") else f"the tag '{node.tag}'"
        raise ConfigError(f"{here}: {what} cannot be used in a config; write a plain value")
    if isinstance(node, yaml.ScalarNode):
        return Scalar(node.value, node.style is not None, here)
    if isinstance(node, yaml.SequenceNode):
        return Items(tuple(_convert(item, place, seen) for item in node.value), here)
    assert isinstance(node, yaml.MappingNode)
    values: dict[str, Node] = {}
    places: dict[str, str] = {}
    for key_node, value_node in node.value:
        key = _convert(key_node, place, seen)
        if not isinstance(key, Scalar):
            raise ConfigError(f"{key.place}: a key is a word, not {describe_node(key)}")
        if key.text in values:
            raise ConfigError(f"{key.place}: key '{key.text}' is written twice (first at {places[key.text]})")
        values[key.text] = _convert(value_node, place, seen)
        places[key.text] = key.place
    return Mapping(values, places, here)


def describe_node(node: Node) -> str:
    """A node in words, for "got ..." in messages."""
    if isinstance(node, Mapping):
        return "a mapping" + (
            f" with keys {', '.join(list(node.values)[:4])}" if node.values else " without keys"
        )
    if isinstance(node, Items):
        return f"a list of {len(node.items)}"
    if node.is_null:
        return "nothing (null)"
    text = node.text if len(node.text) <= 60 else node.text[:57] + "..."
    return f"the text '{text}'" if node.quoted else f"'{text}'"


def shown_path(path: Path) -> str:
    """A path as messages show it: relative to the working folder where it lies below it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def _same_scalar(one: Node, other: Node) -> bool:
    return isinstance(one, Scalar) and isinstance(other, Scalar) and one.text == other.text
