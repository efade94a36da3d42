"""A training that is looked at: the page follows it, and the training does not notice."""

import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("viser")

from sparse3d import cli  # noqa: E402
from sparse3d.commands import live, view_scenes  # noqa: E402
from sparse3d.commands.live import ShowLive  # noqa: E402
from sparse3d.commands.view_scenes import ShownRun, serve_run  # noqa: E402
from sparse3d.commands.view_watch import curves_of  # noqa: E402
from sparse3d.data.three_spheres import ThreeSpheresConfig, write_three_spheres  # noqa: E402
from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint  # noqa: E402
from sparse3d.recipes import tasks  # noqa: E402
from sparse3d.recipes.radiance.reconstruct import photos_of_split  # noqa: E402
from sparse3d.viewers.exhibit import UP  # noqa: E402
from sparse3d.viewers.rendered import _Watcher  # noqa: E402
from tests.stop_at import StopAt  # noqa: E402

SPLATS = ("splats", "train.steps=24", "start.count=200", "start.sh_degree=1", "strategy.most=260")
SPLATS += ("strategy.start_step=5", "strategy.refine_every=5", "strategy.stop_step=20", "log.every=4")
LEVEL = "refine.levels=[{pixels: 128, rays_per_side: 1}, {pixels: 64, rays_per_side: 2}]"
VOXELS = ("voxels_three_spheres", "train.steps=24", "model.resolution=8", "refine.prune_every=6", LEVEL)
HASH = ("hash", "train.steps=6", "refine.levels=[{pixels: 128, rays_per_side: 1}]")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_spheres")
    write_three_spheres(folder, ThreeSpheresConfig(views=12, held_out=2, size=24))
    return folder


class Looking(ShowLive):
    """Somebody looks, from another place after each step, and waits for each picture."""

    drawn = 0

    def after_step(self, trainer):
        if not self.pictures._watchers:
            camera = SimpleNamespace(
                wxyz=np.array([1.0, 0, 0, 0]), fov=0.8, aspect=1.0, image_height=40, position=np.zeros(3)
            )
            self.pictures._watchers[1] = _Watcher(SimpleNamespace(client_id=1, camera=camera))
            self.pictures.renew(kind="normal")
        watcher = self.pictures._watchers[1]
        watcher.client.camera.position = np.array([0.01 * trainer.step, 0, -2.4])
        watcher.wanted += 1
        super().after_step(trainer)
        self.drawn += watcher.has == watcher.wanted


def trained(photos, out, changes, looked_at):
    config = tasks.load(changes[0], [f"data.root={photos}", *changes[1:]])
    hooks = []
    if looked_at:
        opened = photos_of_split(config.data, config.data.split)
        hooks.append(Looking(config, opened, "a training"))
    tasks.task_of(changes[0]).recipe.train(config, out, extra_hooks=hooks)
    weights = read_checkpoint(CheckpointFolder(out / "checkpoints").find("last"))
    return weights.tensors, hooks


@pytest.mark.parametrize("changes", [SPLATS, VOXELS, HASH], ids=["splats", "voxels", "hash"])
def test_a_training_that_is_looked_at_ends_with_the_same_bits(photos, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(live, "SHARE", 1e9)
    monkeypatch.setattr(live, "EVERY", 0.0)
    alone, _ = trained(photos, tmp_path / "alone", changes, False)
    seen, (hook,) = trained(photos, tmp_path / "seen", changes, True)
    assert hook.drawn >= 3, "somebody saw something"
    assert alone.keys() == seen.keys()
    assert [name for name in alone if not torch.equal(alone[name], seen[name])] == []
    assert len(hook.server.losses.chart.data[0]) == len(hook._steps)
    assert f"step {hook._steps[-1]} of {hook._steps[-1]}" in hook.server._note.content


def test_the_time_for_showing_is_bounded(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "SHARE", 0.0)
    monkeypatch.setattr(live, "EVERY", 0.0)
    _, (hook,) = trained(photos, tmp_path / "run", SPLATS, True)
    assert hook.drawn <= 1, "one, and then there is no time left"


def test_the_page_of_a_run_follows_its_checkpoints(photos, tmp_path, capsys):
    run = tmp_path / "run"
    config = tasks.load(SPLATS[0], [f"data.root={photos}", *SPLATS[1:]])
    recipe = tasks.task_of(SPLATS[0]).recipe
    recipe.train(config, run, extra_hooks=[StopAt(8)])
    shown = ShownRun(run, "last", "cpu", None)
    server = serve_run(shown, 0, "127.0.0.1")
    try:
        assert "step 8" in server._title.content and len(server.losses.chart.data[0]) == 2
        rounds = iter([False, False, True])

        def until(seconds):
            if not (over := next(rounds)):
                recipe.train(config, run, resume=True)
            return over

        shown.follow(server, lambda first: server.show(*shown.show(), stand=first), until)
        assert "step 24" in server._title.content and len(server.losses.chart.data[0]) == 6
        assert len(server._exhibit.splats) == len(server._splats.buffer) > 200
        # Where one looks from is where the photos were taken from.
        view = server._exhibit.viewpoint
        assert view.up == pytest.approx(UP["z"], abs=0.1) and 2 < view.distance < 3
    finally:
        server.close()
    assert cli.main(["view", str(run), "--html", str(tmp_path / "a.html")]) == 0
    assert cli.main(["view", str(run), "--out", str(tmp_path / "a.png"), "--size", "64"]) == 0
    assert f"{len(server._exhibit.splats)} Gaussians in" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_waited_for(photos, tmp_path):
    run = tmp_path / "run"
    config = tasks.load(VOXELS[0], [f"data.root={photos}", *VOXELS[1:]])
    recipe = tasks.task_of(VOXELS[0]).recipe
    recipe.train(config, run, extra_hooks=[StopAt(1)])
    kept = run / "checkpoints"
    kept.rename(tmp_path / "later")
    shown = ShownRun(run, "best", "cpu", "y")
    server = serve_run(shown, 0, "127.0.0.1")
    try:
        assert "no checkpoint yet" in server._note.content and server.pictures.sight is view_scenes.BLANK
        rounds = iter([False, False, True])

        def until(seconds):
            if (tmp_path / "later").exists():
                (tmp_path / "later").rename(kept)
            return next(rounds)

        shown.follow(server, lambda first: server.show(*shown.show(), stand=first), until)
        assert server.pictures.sight is not view_scenes.BLANK and not server._note.visible
        assert server._exhibit.viewpoint.up == UP["y"]
    finally:
        server.close()


def test_curves_of_a_long_run_are_thinned(tmp_path):
    lines = [
        f'{{"kind": "train", "step": {k}, "loss": {1 / k}, "losses": {{"color": 1.0}}}}'
        for k in range(1, 9000)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "evaluation", "step": 1}', '{"ki']))
    loss, color = curves_of(tmp_path / "metrics.jsonl")
    assert (loss.name, color.name) == ("loss", "color") and len(loss.steps) <= 2000
    assert loss.values == pytest.approx(1 / loss.steps) and loss.steps[0] == 1
    assert curves_of(tmp_path / "none") == []


def test_the_command_tells_where_the_training_can_be_seen(photos, tmp_path, capsys, monkeypatch):
    seen, ended = [], ShowLive.after_train

    def after_train(self, trainer):
        ended(self, trainer)
        seen.append(self.server)

    monkeypatch.setattr(ShowLive, "after_train", after_train)
    command = ["reconstruct", str(photos), "--config", VOXELS[0], *VOXELS[1:], "--out", str(tmp_path / "run")]
    options = ["--view", "--no-turntable", "--no-mesh"]
    assert cli.main([*command, *options]) == 0
    (server,) = seen
    out = capsys.readouterr().out
    assert server.url in out.splitlines() and "step 24 of 24" in server._note.content
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=5):
        pass  # it ends with the training
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        again = [*command[:-1], str(tmp_path / "other"), *options, "--port", str(port)]
        assert cli.main(again) == 2
        assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err
        assert not (tmp_path / "other").exists(), "told before anything begins"
