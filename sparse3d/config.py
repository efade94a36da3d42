"""Strict configs: YAML files onto frozen dataclasses, which are schema, defaults and documentation at once.

    config = load(DetectionConfig, "centerpoint_minidrive", ["optimizer.lr=1e-3"])

A file lists only differences from its `base:`. Whatever does not fit stops with one line that says where:
`configs/x.yaml:12: unknown key 'optim.lrr'; did you mean 'lr'?`. A union of dataclasses is chosen by their
field `kind: Literal["..."]`. A key that is not written keeps the dataclass's default.
"""

import difflib
import inspect
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from sparse3d.config_yaml import (
    Items,
    Mapping,
    Node,
    Scalar,
    describe_node,
    find_config,
    merge,
    override_tree,
    read_tree,
)
from sparse3d.config_yaml import config_names as config_names
from sparse3d.errors import ConfigError

T = TypeVar("T")
_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.?inf", re.IGNORECASE
)


def load(cls: type[T], source: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a config by path or by name into `cls`; `overrides` are `a.b=c` (YAML values)."""
    tree = read_tree(find_config(source))
    for override in overrides:
        tree = merge(tree, override_tree(override))
    return _build(cls, tree, "", MISSING)


def to_dict(config: Any) -> Any:
    """A config as plain dicts, lists and scalars."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config) if f.init}
    if isinstance(config, dict):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def to_yaml(config: Any) -> str:
    """A config as YAML that loads back to an equal object."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)


def dump(config: Any, path: str | Path) -> None:
    """Write a resolved config atomically; it loads back to an equal object."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not io.files: config stands on a lower floor than io.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(to_yaml(config))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def describe(cls: Any, prefix: str = "", default: Any = MISSING) -> list[str]:
    """One line a key: `optimizer.lr: number = 0.003  # peak`; unions list the keys of each kind.

    `default` is an instance of `cls` whose values are shown in place of the class's own defaults.
    """
    lines: list[str] = []
    types, comments = get_type_hints(cls), _trailing_comments(cls)
    for f in _init_fields(cls):
        if f.name == "kind":
            continue
        key = f"{prefix}{f.name}"
        value = getattr(default, f.name) if isinstance(default, cls) else _default_of(f)
        comment = f"  # {comments[f.name]}" if f.name in comments else ""
        members = [m for m in _members(types[f.name]) if is_dataclass(m)]
        if not members or not (is_dataclass(value) or value is MISSING):
            shown = "" if value is MISSING else f" = {to_yaml_value(value)}"
            lines.append(f"{key}: {_type_name(types[f.name])}{shown}{comment}")
        for member in members:
            if len(members) > 1:
                chosen = " (default)" if type(value) is member else ""
                lines.append(f"{key}.kind: {_kind(member)}{chosen}{comment}")
            lines += describe(member, f"{key}.", value)
    return lines


def to_yaml_value(value: Any) -> str:
    """A value on one line of YAML, as an override on the command line would write it."""
    text = yaml.dump(to_dict(value), Dumper=_Dumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()


# ---- building: a node and a type in, a value out ---------------------------------------------------------


def _build(expected: Any, node: Node, path: str, default: Any) -> Any:
    """`default` is the value of the field without `node`; a mapping only changes what it names."""
    members = _members(expected)
    if NoneType in members:
        if isinstance(node, Scalar) and node.is_null:
            return None
        members = [m for m in members if m is not NoneType]
    if len(members) > 1:
        return _build_union(expected, members, node, path, default)
    expected = members[0]
    if is_dataclass(expected):
        return _build_dataclass(expected, node, path, default)
    origin = get_origin(expected)
    if origin is tuple:
        return _build_tuple(expected, node, path)
    if origin is dict:
        return _build_dict(expected, node, path)
    if not isinstance(node, Scalar):
        raise _wrong(node, path, expected)
    return _scalar(expected, node, path)


def _build_union(expected: Any, members: list[Any], node: Node, path: str, default: Any) -> Any:
    classes = [m for m in members if is_dataclass(m)]
    if isinstance(node, Mapping) and classes:
        return _build_dataclass(_class_of_kind(classes, node, path, default), node, path, default)
    # The narrowest reading wins: `3` in `str | int` is a number.
    order = [bool, int, float]
    for member in sorted(
        members, key=lambda m: order.index(m) if m in order else len(order) + (m in (str, Path))
    ):
        try:
            return _build(member, node, path, MISSING)
        except ConfigError:
            continue
    raise _wrong(node, path, expected)


def _class_of_kind(classes: list[Any], node: Mapping, path: str, default: Any) -> Any:
    if len(classes) == 1:
        return classes[0]
    by_kind = {_kind(c): c for c in classes}
    stated = node.values.get("kind")
    if stated is None:
        if type(default) in classes:
            return type(default)
        raise ConfigError(f"{node.place}: {path or 'config'} needs 'kind', one of: {', '.join(by_kind)}")
    if not isinstance(stated, Scalar) or stated.text not in by_kind:
        near = difflib.get_close_matches(stated.text, by_kind, n=1) if isinstance(stated, Scalar) else []
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(by_kind)}"
        raise ConfigError(f"{stated.place}: {_join(path, 'kind')}: got {describe_node(stated)}; {hint}")
    return by_kind[stated.text]


def _build_dataclass(cls: Any, node: Node, path: str, default: Any) -> Any:
    if not isinstance(node, Mapping):
        raise _wrong(node, path, cls)
    types, known = get_type_hints(cls), {f.name: f for f in _init_fields(cls)}
    for key, place in node.key_places.items():
        if key in node.values and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{place}: unknown key '{_join(path, key)}'; {hint}")
    inherited = default if type(default) is cls else MISSING
    values: dict[str, Any] = {}
    missing: list[str] = []
    for name, f in known.items():
        below = _default_of(f) if inherited is MISSING else getattr(inherited, name)
        if name in node.values:
            values[name] = _build(types[name], node.values[name], _join(path, name), below)
        elif below is not MISSING:
            values[name] = below
        else:
            missing.append(name)
    if missing:
        key, what = _join(path, missing[0]), _type_name(types[missing[0]])
        raise ConfigError(f"{node.place}: '{key}' is missing; it has no default, write a {what}")
    try:
        return cls(**values)
    except ValueError as error:
        # A check that names a field first is reported at that field's line.
        first = re.match(r"\w+", str(error))
        key = first.group() if first and first.group() in node.values else None
        place = node.key_places[key] if key else node.place
        raise ConfigError(f"{place}: {path + ': ' if path else ''}{error}") from error


def _build_tuple(expected: Any, node: Node, path: str) -> tuple[Any, ...]:
    if not isinstance(node, Items):
        raise _wrong(node, path, expected)
    types = get_args(expected)
    if len(types) == 2 and types[1] is Ellipsis:
        types = (types[0],) * len(node.items)
    if len(types) != len(node.items):
        raise _wrong(node, path, expected)
    pairs = zip(types, node.items, strict=True)
    return tuple(_build(t, item, f"{path}[{i}]", MISSING) for i, (t, item) in enumerate(pairs))


def _build_dict(expected: Any, node: Node, path: str) -> dict[Any, Any]:
    if not isinstance(node, Mapping):
        raise _wrong(node, path, expected)
    _, value_type = get_args(expected)
    return {key: _build(value_type, value, _join(path, key), MISSING) for key, value in node.values.items()}


def _scalar(expected: Any, node: Scalar, path: str) -> Any:
    text = node.text
    if get_origin(expected) is Literal:
        for option in get_args(expected):
            if text == (str(option).lower() if isinstance(option, bool) else str(option)):
                return option
        near = difflib.get_close_matches(text, [str(o) for o in get_args(expected)], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{_wrong(node, path, expected)}{hint}")
    if not node.is_null:
        if expected is str:
            return text
        if expected is Path:
            return Path(text).expanduser()
        if not node.quoted:
            if expected is bool and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if expected is int and _INT.fullmatch(text):
                return int(text)
            if expected is float and _FLOAT.fullmatch(text):
                return float(text.lower().replace(".inf", "inf"))
    if expected not in (str, Path, bool, int, float):
        raise TypeError(f"{path}: a config field cannot have the type {expected}")
    raise _wrong(node, path, expected)


# ---- types in words --------------------------------------------------------------------------------------


def _members(expected: Any) -> list[Any]:
    return list(get_args(expected)) if get_origin(expected) in (Union, UnionType) else [expected]


def _init_fields(cls: Any) -> list[Field[Any]]:
    return [f for f in fields(cls) if f.init]


def _default_of(f: Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _kind(cls: Any) -> str:
    options = get_args(get_type_hints(cls).get("kind"))
    if len(options) != 1:
        raise TypeError(
            f'{cls.__name__} stands in a union and needs a field kind: Literal["..."] with one value'
        )
    return options[0]


def _type_name(expected: Any) -> str:
    words = {
        int: "whole number",
        float: "number",
        bool: "true/false",
        str: "text",
        Path: "path",
        NoneType: "null",
    }
    if expected in words:
        return words[expected]
    origin, args = get_origin(expected), get_args(expected)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(a) for a in args)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return f"list of {_type_name(args[0])}"
    if origin is tuple:
        return f"list [{', '.join(_type_name(a) for a in args)}]"
    if origin is dict:
        return f"mapping of names to {_type_name(args[1])}"
    return f"mapping ({expected.__name__})"


def _wrong(node: Node, path: str, expected: Any) -> ConfigError:
    return ConfigError(
        f"{node.place}: {path or 'config'}: got {describe_node(node)}, expected {_type_name(expected)}"
    )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _trailing_comments(cls: type) -> dict[str, str]:
    """The comments behind a dataclass's fields, its own before those of its bases; none where the source is
    not at hand."""
    comments: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        try:
            source = inspect.getsource(part) if is_dataclass(part) else ""
        except (OSError, TypeError):
            continue
        comments |= dict(re.findall(r"^    (\w+):[^#\n]*#\s*(.+?)\s*$", source, re.MULTILINE))
    return comments


class _Dumper(yaml.SafeDumper):
    """Quotes text that reads as a number (`1e-3`), which YAML 1.1 would leave bare."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "'" if _FLOAT.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)

__all__ = ["ConfigError", "config_names", "describe", "dump", "load", "to_dict", "to_yaml", "to_yaml_value"]
