"""The checkpoint that a NaN names is a good one: its own weights gave a finite loss."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.models import MonoStudent
from adu_depth.training.config import OptimizerConfig
from adu_depth.training.good_checkpoints import NonFiniteLoss
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import LOOP, STUDENT, tiny_scenes, tiny_student, tiny_teacher

RECKLESS = OptimizerConfig(learning_rate=1e3, warmup=0.3)


def predicts(path: Path) -> bool:
    """Whether the network kept there is finite, and says something finite of the scenes that it was trained on."""
    model = load_model(path).model
    left = torch.stack([scene.left for scene in (tiny_scenes()[i] for i in range(5))])
    with torch.no_grad():
        depth = model(left).depth
    return all(bool(torch.isfinite(t).all()) for t in (depth, *model.state_dict().values()))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every", [1, 2])
def test_a_blow_up_names_a_checkpoint_that_is_whole(every: int, seed: int, tmp_path: Path) -> None:
    loop = replace(LOOP, steps=40, seed=seed, checkpoint_every=every, check_every=every, keep_checkpoints=1)
    with pytest.raises(NonFiniteLoss) as caught:
        train_student(tiny_student(tmp_path / "run", loop=loop, optimizer=RECKLESS), samples=tiny_scenes())
    named = re.search(r"the last good checkpoint is (\S+)\.", str(caught.value))
    assert named is not None, caught.value
    assert predicts(Path(named[1]))
    assert list_checkpoints(tmp_path / "run")[-1] == Path(named[1]), "what a resumed run and predict would take"


class BreaksAt(MonoStudent):
    """Finite weights that give NaN from the nth forward on."""

    def __init__(self, forwards: int) -> None:
        super().__init__(STUDENT)
        self.left = forwards

    def forward(self, image, camera=None):  # type: ignore[no-untyped-def]
        self.left -= 1
        prediction = super().forward(image, camera)
        return prediction if self.left >= 0 else prediction.map(lambda t: t * torch.nan)


def breaking(monkeypatch: pytest.MonkeyPatch, forwards: int) -> None:
    monkeypatch.setattr("adu_depth.training.runs.build_student", lambda *_: BreaksAt(forwards))


def test_weights_that_fail_their_first_look_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, forwards=5)  # two steps, the look at what they made, two steps; then the look fails
    loop = replace(LOOP, keep_checkpoints=1)
    with pytest.raises(NonFiniteLoss, match=r"with the weights that step 3 made, samples synthetic.*step-00000002\."):
        train_student(tiny_student(tmp_path / "run", loop=loop), samples=tiny_scenes())
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002"]


def test_a_checkpoint_whose_next_step_fails_is_set_aside_and_the_one_before_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, forwards=6)  # as above, and the look at what step 3 made
    loop = replace(LOOP, keep_checkpoints=1)
    with pytest.raises(NonFiniteLoss, match=r"at step 4, samples .* the last good checkpoint is .*step-00000002\."):
        train_student(tiny_student(tmp_path / "run", loop=loop), samples=tiny_scenes())
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002"]
    assert (tmp_path / "run/checkpoints/broken-step-00000004").is_dir(), "nothing is thrown away"


def test_the_last_weights_of_a_run_are_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, forwards=6 + 2)
    with pytest.raises(NonFiniteLoss, match=r"with the weights that step 5 made"):
        train_student(tiny_student(tmp_path / "run"), samples=tiny_scenes())
    assert list_checkpoints(tmp_path / "run")[-1].name == "step-00000004"


def test_the_look_leaves_no_trace_in_running_statistics(tmp_path: Path) -> None:
    for name, every in (("seldom", 6), ("often", 1)):
        config = tiny_teacher(tmp_path / name, loop=replace(LOOP, checkpoint_every=every))
        train_teacher(replace(config, model=replace(config.model, norm="batch")))
    seldom, often = (load_model(tmp_path / name).model.state_dict() for name in ("seldom", "often"))
    assert [name for name in seldom if not torch.equal(seldom[name], often[name])] == []
