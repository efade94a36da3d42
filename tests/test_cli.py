"""The command line: exit codes, and faults of the input in one line that names the way out."""

import json

import numpy as np
import pytest

from sparse3d import cli
from sparse3d.commands import data
from sparse3d.config import load
from sparse3d.recipes.detection_config import DetectionConfig
from tests.recipes.small_run import TINY as ONE_EPOCH

TINY = ONE_EPOCH.replace("epochs: 1", "epochs: 2").replace(
    "evaluation: {batch_size: 2}", "evaluation: {every_epochs: 2, batch_size: 2}"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSE3D_DATASETS", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def fault(capsys, *argv):
    """The one line that a faulty command leaves on stderr."""
    assert cli.main(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.strip().splitlines()
    assert line.startswith("sparse3d: error: ")
    return line.removeprefix("sparse3d: error: ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian", "x"], "unknown word 'trian'; did you mean 'train'?; see sparse3d --help"),
        (["zzz"], "unknown word 'zzz'; there are: train, evaluate, detect"),
        ([], "the following arguments are required: COMMAND; see sparse3d --help"),
        (["train"], "required: CONFIG"),
        (["train", "tiny.yaml", "--rseume"], "cannot use --rseume"),
        (["data", "make", "minidrve", "--out", "x"], "did you mean 'minidrive'?"),
        (["train", "nowhere"], "no config 'nowhere': neither a file nor the name of a config"),
        (
            ["train", "tiny.yaml", "train.epoch=3"],
            "command line: unknown key 'train.epoch'; did you mean 'epochs'?",
        ),
        (["train", "tiny.yaml", "train.epochs=0"], "command line: train: epochs must be at least 1, got 0"),
        (["train", "tiny.yaml", "generate=null"], "mini: no such folder"),
        (["train", "tiny.yaml", "--resume"], "no run in runs/tiny (it has no config.yaml); start it without"),
        (["train", "tiny.yaml", "data.classes=[Car]"], "a label is a position in both, write the same list"),
        (["evaluate", "."], "not the folder of a run: it has no config.yaml"),
        (["detect", "nowhere", "x.bin", "--out", "o"], "not the folder of a run"),
        (
            ["detect", "r", "x.bin", "--out", "o", "--score", "3"],
            "--score is 3.0, expected a number from 0 to 1",
        ),
        (["detect", "r", "x.bin", "--out", "o", "--score", "x"], "invalid float value: 'x'"),
        (["data", "check", "kitti", "--root", "nowhere"], "nowhere: no such folder"),
        (["config", "show", "tiny.yaml", "x=1"], "command line: unknown key 'x'"),
        (["convert-weights", "a.pth", "b.safetensors"], "the following arguments are required: --from"),
        (["convert-weights", "a", "b", "--from", "spcnv2"], "did you mean 'spconv2'?"),
        (["convert-weights", "a", "b.pth", "--from", "spconv2"], "b.pth: the result is a safetensors file"),
        (["convert-weights", "a.pth", "b.safetensors", "--from", "spconv2"], "No such file or directory"),
        (["convert-weights", "a", "b", "--from", "spconv2", "--map", "x"], "'x' is not of the form OLD=NEW"),
        (
            ["convert-weights", "a", "b", "--from", "torchsparse", "--kernel", "x=3"],
            "'x=3' is not of the form NAME=3x3x3",
        ),
    ],
)
def test_faults_are_one_line_with_the_way_out(here, capsys, argv, message):
    assert message in fault(capsys, *argv)


def test_a_run_that_failed_before_its_first_step_can_be_started_again(here, capsys):
    for _ in range(2):
        assert "mini: no such folder" in fault(capsys, "train", "tiny.yaml", "generate=null")
    assert (here / "runs/tiny/config.yaml").is_file()


def test_a_folder_of_something_else_is_left_alone(here, capsys):
    (here / "photos").mkdir()
    (here / "photos/a.png").touch()
    assert "exists and is not a run" in fault(capsys, "train", "tiny.yaml", "--out", "photos")


def test_debug_shows_where_it_happened(here):
    with pytest.raises(ValueError, match="no config 'nowhere'"):
        cli.main(["train", "nowhere", "--debug"])


def test_our_own_faults_are_not_hidden(here, monkeypatch):
    monkeypatch.setattr(data, "_list", lambda arguments: {}["key"])
    with pytest.raises(KeyError):
        cli.main(["data", "list"])


def test_help_and_version(capsys):
    assert cli.main(["--help"]) == 0
    words = capsys.readouterr().out
    assert all(name in words for name in ("train", "evaluate", "detect", "data", "config", "doctor"))
    assert cli.main(["--version"]) == 0
    assert cli.main(["train", "--help"]) == 0
    assert "--resume" in capsys.readouterr().out


def test_interrupt_says_how_to_resume(here, capsys, monkeypatch):
    from sparse3d.recipes import detection

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(detection, "train", interrupted)
    assert cli.main(["train", "tiny.yaml"]) == 130
    assert "--resume (run folder: runs/tiny)" in capsys.readouterr().err


def test_config_show_prints_what_loads_to_the_same(here, capsys):
    assert cli.main(["config", "show", "tiny.yaml", "train.epochs=7"]) == 0
    (here / "shown.yaml").write_text(capsys.readouterr().out)
    assert load(DetectionConfig, "shown.yaml") == load(DetectionConfig, "tiny.yaml", ["train.epochs=7"])


def test_config_keys_and_list(here, capsys):
    assert cli.main(["config", "keys", "train."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("train.epochs: whole number = 80") for line in lines)
    assert all(line.startswith("train.") for line in lines)
    assert cli.main(["config", "list"]) == 0
    assert cli.main(["data", "list"]) == 0


def test_doctor_tests_the_kernels(capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" ok (") == 4 and "FAIL" not in shown
    for word in ("python", "torch", "numba", "cuda", "tensorboard", "free disk"):
        assert word in shown


def test_doctor_reports_a_wrong_kernel(capsys, monkeypatch):
    from sparse3d import doctor

    def broken():
        raise RuntimeError("no such thing")

    monkeypatch.setitem(doctor.SELF_TESTS, "segment sum", lambda: 0.5)
    monkeypatch.setitem(doctor.SELF_TESTS, "voxelize", broken)
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL (largest error 5.0e-01)" in shown and "FAIL (RuntimeError: no such thing)" in shown


def test_weights_are_converted_as_the_options_say(here, capsys):
    import torch

    from sparse3d.io.weight_files import read_tensors

    kernel = torch.arange(54.0).reshape(27, 1, 2)
    flat = torch.arange(6.0).reshape(3, 1, 2)
    torch.save({"state_dict": {"net.a.kernel": kernel, "net.b.kernel": flat}}, "in.pth")
    command = ["convert-weights", "in.pth", "out.safetensors", "--from", "minkowski"]
    assert "say --kernel net.b.kernel=AxBxC" in fault(capsys, *command)
    assert not (here / "out.safetensors").exists()
    assert cli.main([*command, "--kernel", "net.b=1x1x3", "--map", "net.=", "--axes", "zyx"]) == 0
    shown = capsys.readouterr()
    assert "27 1 2" in shown.out and "3 3 3 1 2" in shown.out and "2 of 2 tensors" in shown.err
    found = read_tensors("out.safetensors")
    # Row v = x + 3 y + 9 z of columns that were (z, y, x): our first axis is their last.
    assert torch.equal(found["a.weight"], kernel.reshape(3, 3, 3, 1, 2))
    assert found["b.weight"].shape == (3, 1, 1, 1, 2)
    write = ["convert-weights", "in.pth", "out.safetensors", "--from", "openpcdet"]
    assert "no tensor is named backbone_3d.*" in fault(capsys, *write)
    assert "are zyx" in fault(capsys, *write, "--axes", "xyz")


@pytest.mark.slow
def test_train_evaluate_detect(here, capsys):
    """The whole way on generated scenes; overrides may stand behind options."""
    assert cli.main(["train", "tiny.yaml", "--out", "run", "train.epochs=1"]) == 0
    assert "sparse3d evaluate run" in capsys.readouterr().err
    assert load(DetectionConfig, "run/config.yaml").train.epochs == 1
    assert "--resume" in fault(capsys, "train", "tiny.yaml", "--out", "run")
    assert "differs from run/config.yaml in train.epochs" in fault(
        capsys, "train", "tiny.yaml", "--out", "run", "--resume"
    )
    assert cli.main(["train", "tiny.yaml", "--out", "run", "--resume", "train.epochs=1"]) == 0
    capsys.readouterr()

    assert cli.main(["evaluate", "run"]) == 0
    shown = capsys.readouterr().out
    assert "KITTI average precision" in shown and "centre-distance average precision" in shown
    assert json.loads((here / "run/evaluation/val/metrics.json").read_text())["frames"] == 1
    assert "no such split" in fault(capsys, "evaluate", "run", "--split", "vla")
    assert "no checkpoint '7'" in fault(capsys, "evaluate", "run", "--checkpoint", "7")

    np.zeros((0, 4), np.float32).tofile(here / "empty.bin")
    clouds = ["empty.bin", "mini/training/velodyne/000000.bin"]
    assert cli.main(["detect", "run", *clouds, "--out", "found", "--pictures", "--score", "0.01"]) == 0
    assert json.loads((here / "found/empty.json").read_text())["input"] == "empty.bin"
    for found in json.loads((here / "found/000000.json").read_text())["objects"]:
        assert found["class"] in ("Car", "Pedestrian", "Cyclist") and found["score"] >= 0.01
    assert (here / "found/000000.png").is_file() and (here / "found/empty.png").is_file()
    assert (here / "found/empty.txt").read_text() == ""
    capsys.readouterr()
    assert "no such file or folder" in fault(capsys, "detect", "run", "nowhere.bin", "--out", "found")
