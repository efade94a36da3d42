"""Configs: what fits is loaded, and everything that does not is named with its place and a way out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from sparse3d import config_yaml
from sparse3d.config import ConfigError, describe, dump, load, to_dict


@dataclass(frozen=True)
class AdamConfig:
    kind: Literal["adam"] = "adam"
    lr: float = 1e-3  # peak rate
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class SGDConfig:
    momentum: float
    kind: Literal["sgd"] = "sgd"
    lr: float = 0.1

    def __post_init__(self):
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum}")


@dataclass(frozen=True)
class FlipConfig:
    kind: Literal["flip"] = "flip"
    axis: Literal["x", "y"] = "y"


@dataclass(frozen=True)
class RotateConfig:
    kind: Literal["rotate"] = "rotate"
    angle: float = 0.7


@dataclass(frozen=True)
class DataConfig:
    root: Path
    columns: Literal[4, 5] = 4
    limit: int | None = None


@dataclass(frozen=True)
class Config:
    data: DataConfig
    optim: AdamConfig | SGDConfig = AdamConfig(lr=0.5)
    epochs: int = 10  # whole passes
    name: str = "x"
    deterministic: bool = False
    steps: tuple[FlipConfig | RotateConfig, ...] = ()
    channels: tuple[int, ...] = (16, 32)
    size: tuple[float, float, float] = (0.1, 0.1, 0.2)
    clip: float | Literal["auto"] | None = 10.0
    weights: dict[str, float] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def loaded(text="data: {root: a}\n", *overrides, name="x.yaml"):
    Path(name).write_text(text)
    return load(Config, name, overrides)


def refusal(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        loaded(text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_and_every_kind_of_value():
    text = """
data: {root: ~/d, columns: 5, limit: null}
optim: {betas: [0, .99]}
epochs: 1_000
name: No
deterministic: true
steps: [{kind: rotate, angle: 1}, {kind: flip}]
channels: [1, 2, 3]
clip: auto
weights: {box: 2, "1e-3": 3e-1}
"""
    config = loaded(text)
    assert config.data == DataConfig(Path("~/d").expanduser(), 5, None)
    assert config.optim == AdamConfig(lr=0.5, betas=(0.0, 0.99)), (
        "what is not written keeps the default above"
    )
    assert (config.epochs, config.name, config.deterministic) == (1000, "No", True)
    assert config.steps == (RotateConfig(angle=1.0), FlipConfig())
    assert config.channels == (1, 2, 3) and config.size == (0.1, 0.1, 0.2)
    assert config.clip == "auto" and config.weights == {"box": 2.0, "1e-3": 0.3}
    assert all(type(value) is float for value in config.optim.betas)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", ".001", "+0.001", "1_0e-4"])
def test_numbers_that_yaml_1_1_reads_as_text_are_numbers(text):
    assert loaded("data: {root: a}", f"optim.lr={text}").optim.lr == pytest.approx(0.001)


def test_infinity_is_a_number_and_nan_is_not():
    assert loaded("data: {root: a}", "clip=.inf").clip == float("inf")
    assert "got '.nan', expected number" in refusal("data: {root: a}", "optim.lr=.nan")


REFUSALS = {
    "unknown key, near": ("optim:\n  lrr: 3\n", "x.yaml:2: unknown key 'optim.lrr'; did you mean 'lr'?"),
    "unknown key, far": ("name: a\nzzz: 3\n", "x.yaml:2: unknown key 'zzz'; known keys: data, optim, epochs"),
    "missing": ("data: {columns: 4}", "x.yaml:1: 'data.root' is missing"),
    "missing section": ("epochs: 3", "x.yaml:1: 'data' is missing"),
    "bool for int": ("epochs: true", "x.yaml:1: epochs: got 'true', expected whole number"),
    "float for int": ("epochs: 3.0", "x.yaml:1: epochs: got '3.0', expected whole number"),
    "quoted number": ("epochs: '3'", "x.yaml:1: epochs: got the text '3', expected whole number"),
    "int for bool": ("deterministic: 1", "x.yaml:1: deterministic: got '1', expected true/false"),
    "yaml 1.1 bool": ("deterministic: yes", "deterministic: got 'yes', expected true/false"),
    "text for float": ("optim: {lr: fast}", "x.yaml:1: optim.lr: got 'fast', expected number"),
    "null": ("epochs:\n", "x.yaml:1: epochs: got nothing (null), expected whole number"),
    "list for scalar": ("name: [a]", "name: got a list of 1, expected text"),
    "scalar for list": ("channels: 3", "channels: got '3', expected list of whole number"),
    "element": ("channels:\n- 1\n- x", "x.yaml:3: channels[1]: got 'x', expected whole number"),
    "length": ("size: [1, 2]", "size: got a list of 2, expected list [number, number, number]"),
    "scalar for section": ("optim: adam", "optim: got 'adam', expected mapping (AdamConfig) or mapping"),
    "mapping for scalar": ("epochs: {a: 1}", "epochs: got a mapping with keys a, expected whole number"),
    "kind, near": ("optim: {kind: sdg}", "optim.kind: got 'sdg'; did you mean 'sgd'?"),
    "kind, far": ("optim: {kind: zzz}", "optim.kind: got 'zzz'; expected one of: adam, sgd"),
    "kind, none": ("steps: [{axis: x}]", "steps[0] needs 'kind', one of: flip, rotate"),
    "literal": ("steps: [{kind: flip, axis: z}]", "steps[0].axis: got 'z', expected x | y"),
    "literal number": ("data: {root: a, columns: 6}", "data.columns: got '6', expected 4 | 5"),
    "check of a value": (
        "optim:\n  kind: sgd\n  momentum: 2\n",
        "x.yaml:3: optim: momentum must lie in [0, 1), got 2.0",
    ),
    "union": ("clip: slow", "clip: got 'slow', expected number or auto or null"),
    "duplicate": ("epochs: 1\nepochs: 2", "x.yaml:2: key 'epochs' is written twice (first at x.yaml:1)"),
    "syntax": ("epochs: [1\nname: 3", "x.yaml:2: not valid YAML: "),
    "tab": ("data:\n\troot: a", "x.yaml:2: not valid YAML: "),
    "two documents": ("epochs: 1\n---\nepochs: 2", "x.yaml:2: not valid YAML: "),
    "not a mapping": ("- 1\n- 2", "x.yaml:1: a config is a mapping of keys to values, not a list of 2"),
    "alias": ("channels: &c [1]\nsize: *c", "YAML aliases (*name) are not supported"),
    "loop": ("channels: &c [*c]", "YAML aliases (*name) are not supported"),
    "merge key": ("optim: {<<: {lr: 1}}", "merge keys (<<) cannot be used"),
    "python tag": ("name: !!python/object/apply:os.system [ls]", "cannot be used in a config"),
    "key": ("? [a]\n: 1", "x.yaml:1: a key is a word, not a list of 1"),
    "deep": ("channels: " + "[" * 5000, "x.yaml"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_name_the_place_and_the_way_out(text, message):
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=3", "command line: unknown key 'optim.lrr'; did you mean 'lr'?"),
        ("epochs=x", "command line: epochs: got 'x', expected whole number"),
        ("epochs", "command line: cannot read 'epochs'; write an override as key.subkey=value"),
        ("a..b=1", "command line: cannot read 'a..b=1'"),
        ("epochs=[1", "command line: not valid YAML"),
        ("epochs=", "command line: epochs: got nothing (null)"),
    ],
)
def test_overrides_report_as_command_line(override, message):
    assert message in refusal("data: {root: a}", override)


def test_missing_key_is_reported_at_the_file_also_with_overrides():
    assert refusal("epochs: 3\ndata:\n  columns: 4\n", "data.limit=3").startswith("x.yaml:3: 'data.root'")


def test_overrides_are_yaml_and_the_last_one_wins():
    config = loaded("data: {root: a}", "epochs=3", "channels=[4, 5]", "epochs=4", "data.limit=7")
    assert (config.epochs, config.channels, config.data.limit) == (4, (4, 5), 7)


def test_base_gives_what_the_file_leaves_out_and_lists_replace():
    Path("sub").mkdir()
    Path("root.yaml").write_text("data: {root: a, limit: 3}\nchannels: [1, 2, 3]\nepochs: 5\n")
    Path("sub/middle.yaml").write_text("base: ../root.yaml\nepochs: 6\n")
    config = loaded("base: sub/middle.yaml\nchannels: [9]\ndata: {limit: null}\n")
    assert config == Config(DataConfig(Path("a")), epochs=6, channels=(9,))


def test_fault_in_a_base_is_reported_there():
    Path("root.yaml").write_text("data: {root: a}\n\nepoch: 5\n")
    assert refusal("base: root.yaml\nepochs: 6") == "root.yaml:3: unknown key 'epoch'; did you mean 'epochs'?"


def test_another_kind_drops_the_fields_of_the_former():
    Path("root.yaml").write_text("data: {root: a}\noptim: {kind: adam, betas: [0, 0], lr: 3}\n")
    assert loaded("base: root.yaml\noptim: {kind: sgd, momentum: 0.5}").optim == SGDConfig(0.5)
    assert loaded("base: root.yaml\noptim: {kind: adam, lr: 4}").optim == AdamConfig(lr=4.0, betas=(0.0, 0.0))
    assert loaded("base: root.yaml\n", "optim.kind=sgd", "optim.momentum=0.1").optim == SGDConfig(0.1)


def test_cycle_of_bases():
    Path("a.yaml").write_text("epochs: 1\nbase: x.yaml")
    assert (
        refusal("base: a.yaml")
        == "a.yaml:2: the bases form a cycle: x.yaml -> a.yaml -> x.yaml; remove one of them"
    )
    assert "cycle" in refusal("base: x.yaml")


def test_missing_base_is_reported_where_it_is_named():
    assert refusal("\nbase: nowhere.yaml").startswith("x.yaml:2: no config 'nowhere.yaml'")
    assert refusal("base: [a, b]").startswith("x.yaml:1: base names one parent config, got a list of 2")


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    for name in ("detection/centerpoint_minidrive", "detection/second_kitti", "flow/second_kitti"):
        (shelf / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf / f"{name}.yaml").write_text("data: {root: a}\nepochs: 77\n")
    monkeypatch.setattr(config_yaml, "CONFIG_FOLDERS", (tmp_path / "absent", shelf))
    for name in ("centerpoint_minidrive", "detection/centerpoint_minidrive", "centerpoint_minidrive.yaml"):
        assert load(Config, name).epochs == 77
    assert loaded("base: centerpoint_minidrive\nname: child").epochs == 77
    with pytest.raises(ConfigError, match="did you mean centerpoint_minidrive"):
        load(Config, "centrepoint_minidrive")
    with pytest.raises(ConfigError, match="several configs.*detection/second_kitti, flow/second_kitti"):
        load(Config, "second_kitti")
    with pytest.raises(ConfigError, match="known configs: centerpoint_minidrive, second_kitti"):
        load(Config, "zzz")


def test_not_text():
    Path("x.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="x.yaml: not UTF-8 text"):
        load(Config, "x.yaml")


CONFIGS = [
    Config(DataConfig(Path("a b/c: d"))),
    Config(
        DataConfig(Path("/x"), 5, 3),
        SGDConfig(0.1 + 0.2, lr=1e-17),
        name="1e-3",
        steps=(FlipConfig(axis="x"), RotateConfig(angle=1 / 3)),
        channels=(),
        clip=float("inf"),
        weights={"no": 1.0, "#x": 2e300},
    ),
    *(
        Config(DataConfig(Path("a")), name=name, clip=None)
        for name in ("", "null", "a\nb", "yes", "'", "é 点", "~")
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_dumped_loads_to_an_equal_object(config):
    dump(config, "out/config.yaml")
    assert load(Config, "out/config.yaml") == config
    assert [path.name for path in Path("out").iterdir()] == ["config.yaml"]


def test_to_dict_is_plain():
    assert to_dict(Config(DataConfig(Path("a")), steps=(FlipConfig(),)))["steps"] == [
        {"kind": "flip", "axis": "y"}
    ]


def test_describe_names_keys_types_defaults_and_comments():
    lines = describe(Config)
    assert "epochs: whole number = 10  # whole passes" in lines
    assert "data.root: path" in lines
    assert "data.columns: 4 | 5 = 4" in lines
    assert "optim.kind: adam (default)" in lines and "optim.kind: sgd" in lines
    assert "optim.lr: number = 0.5  # peak rate" in lines, "the default of the field, not of the class"
    assert "optim.momentum: number" in lines
