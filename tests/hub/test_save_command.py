"""`adu-depth save`: the folder, its model card, what is refused, and a push only where it is asked for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest

from adu_depth.checkpoint import load_model
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.hub import AduDepthModel
from adu_depth.inference import write_samples
from adu_depth.saved_network.folder import CARD, FILES
from adu_depth.training.runs import train_teacher
from adu_depth.training.validation_config import ValidationConfig
from tests.hub.runs import RUNS, make_run
from tests.training.tiny import LOOP, SIZE, tiny_teacher


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "student", RUNS["student"])


def save(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["save", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    card = huggingface_hub.ModelCard.load(folder / CARD)
    return card.data.to_dict(), card.text


def evaluated(run: Path, output: Path) -> Path:
    scenes = output.parent / "scenes"
    write_samples(SyntheticStereo(1, 64, 96, seed=4), scenes, 1)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run), "--data", str(scenes), "--output", str(output), "--device", "cpu"])
    assert ended.value.code == 0
    return output


def test_the_card_says_data_settings_seed_metrics_and_what_is_to_be_filled_in(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = evaluated(run, tmp_path / "evaluation")
    capsys.readouterr()
    assert save(run, tmp_path / "out", "--evaluation", evaluation) == 0
    told = capsys.readouterr().out
    assert f"checkpoint {run / 'checkpoints' / 'step-00000003'}" in told
    assert f"licences are to be filled in: {tmp_path / 'out' / CARD}" in told
    data, text = card_of(tmp_path / "out")
    assert data["pipeline_tag"] == "depth-estimation"
    assert data["library_name"] == "transformers"
    assert "license" not in data
    assert "# license: to be filled in" in (tmp_path / "out" / CARD).read_text()
    means = json.loads((evaluation / "metrics.json").read_text())["methods"]["student"]["none"]["means"]
    (index,) = data["model-index"]
    results = {m["type"]: m["value"] for r in index["results"] for m in r["metrics"]}
    assert results["abs_rel"] == pytest.approx(means["abs_rel"], abs=1e-6)
    assert f"| abs_rel | {means['abs_rel']:.4f} |" in text
    for said in (
        "On scenes: protocol `none` (every pixel with ground truth), 1 image, depths 0.001 to 80 m, network at 64×96.",
        "| seed | 11 |",
        "| steps | 3 of 3, 4 images each |",
        "| images | 64×96 |",
        "| data | built-in scenes, endless, seed 0 |",
        "| weights | not stated |",
        'pipeline("depth-estimation", model="student", trust_remote_code=True)',
        "It needs no camera. Its metres are those of the cameras that it was trained with",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stereo teacher", ', right="right.png", fx=721.5, baseline=0.54)'),
        ("light by focal length", "Depth is scaled by it from a focal length of 60 pixels"),
        ("student of windows", "which is the image's own (trained on windows of 64×96)"),
        ("light by focal length", "a short side of 64 (trained on middles of 60×90)"),
    ],
)
def test_the_card_says_what_its_own_network_needs(name: str, said: str, tmp_path: Path) -> None:
    assert save(make_run(tmp_path / "run", RUNS[name]), tmp_path / "out") == 0
    assert said in card_of(tmp_path / "out")[1]


def test_what_a_run_measured_itself_is_on_the_card(tmp_path: Path) -> None:
    validation = ValidationConfig(every=2, samples=2)
    train_teacher(tiny_teacher(tmp_path / "run", loop=replace(LOOP, steps=2), validation=validation))
    assert save(tmp_path / "run", tmp_path / "out") == 0
    text = card_of(tmp_path / "out")[1]
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    value = next(row["validation/abs_rel"] for row in rows if "validation/abs_rel" in row)
    assert f"| abs_rel | {value:.4f} |" in text
    assert "In its own validation, which the weights were chosen by: abs_rel on 2 scenes of seed" in text
    assert AduDepthModel.from_pretrained(tmp_path / "out").step == 2
    assert load_model(tmp_path / "out").size == SIZE


def test_a_card_that_was_filled_in_stays_and_another_network_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert save(run, out, "--license", "apache-2.0", "--name", "A: student") == 0
    data, text = card_of(out)
    assert data["license"] == "apache-2.0"
    assert "| weights | apache-2.0 |" in text
    assert text.lstrip().startswith("# A: student")
    (out / CARD).write_text((out / CARD).read_text() + "\nby somebody\n")
    capsys.readouterr()
    assert save(run, out) == 0
    assert "but for the card, which stays as it was" in capsys.readouterr().out
    assert (out / CARD).read_text().endswith("\nby somebody\n")
    assert save(out, tmp_path / "copy") == 0
    assert (tmp_path / "copy" / CARD).read_text() == (out / CARD).read_text()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = make_run(tmp_path / "other", RUNS["student"], seed=1)
    for arguments, said in (
        ((run, out, "--license", "mit"), f"license: it is for a card that is written anew, and {out / CARD} is taken"),
        ((out, tmp_path / "new", "--name", "X"), f"name: it is for a card that is written anew, and {out / CARD}"),
        ((other, out), f"{out}: expected a new folder or one that holds this network, got another README.md"),
    ):
        assert save(*arguments) == 2
        assert said in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_an_evaluation_of_another_network_or_none_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = evaluated(run, tmp_path / "evaluation")
    other = make_run(tmp_path / "other", RUNS["student"], seed=1)
    teacher = make_run(tmp_path / "teacher", RUNS["stereo teacher"])
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "metrics.json").write_text('{"checkpoint": "x", "data": "y"}')
    for start, folder, said in (
        (other, evaluation, "expected metrics of"),
        (teacher, evaluation, "expected metrics of a teacher, got those of student"),
        (run, tmp_path / "wrong", "methods: expected a JSON object, got nothing"),
        (run, tmp_path / "gone", "cannot be read"),
    ):
        assert save(start, tmp_path / "out", "--evaluation", folder) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    shutil.rmtree(run)  # it was evaluated elsewhere: its maker's word must do
    assert save(make_run(tmp_path / "moved", RUNS["student"]), tmp_path / "out", "--evaluation", evaluation) == 0


def test_bad_input_ends_with_a_message_and_code_2_and_writes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty run").mkdir()
    weights = run / "checkpoints" / "step-00000003" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    broken = make_run(tmp_path / "broken", RUNS["student"])
    (broken / "checkpoints" / "step-00000003" / "model.safetensors").write_bytes(content)
    (tmp_path / "file").write_text("")
    for arguments, said in (
        ((tmp_path / "empty run", "OUT"), "holds no checkpoint"),
        ((tmp_path / "gone", "OUT"), "does not exist"),
        ((tmp_path / "file", "OUT"), "holds no checkpoint"),
        ((broken, "OUT"), "is damaged"),
        ((run, "OUT", "--private"), "private: it is for a repository of the hub, and push names none"),
        ((run, tmp_path / "file"), "cannot write"),
    ):
        told = [tmp_path / "out" if word == "OUT" else word for word in arguments]
        assert save(*told) == 2
        said_there = capsys.readouterr().err
        assert said_there.startswith("error: ")
        assert said in said_there
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_text() == ""


class Hub:
    """Notes what a hub is asked for, in the place of huggingface_hub's client."""

    has_card = False
    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    sent: ClassVar[dict[str, bytes]] = {}

    def __init__(self, token: str | None = None) -> None:
        self.asked.append(("token", {"token": token}))

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.asked.append((repo_id, options))
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def file_exists(self, repo_id: str, name: str) -> bool:
        return self.has_card and name == CARD

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], **options: Any) -> str:
        self.asked.append((repo_id, options))
        self.sent.clear()
        self.sent.update({name: (Path(folder_path) / name).read_bytes() for name in allow_patterns})
        return f"https://huggingface.co/{repo_id}/commit/1"


def test_a_push_sends_the_folder_s_own_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    Hub.asked.clear()
    out = tmp_path / "out"
    out.mkdir()
    (out / "secret.txt").write_text("not to be sent")
    assert save(run, out) == 0
    assert not Hub.asked, "nothing is asked of a hub without --push"
    (out / CARD).unlink()
    assert save(run, out, "--push", "somebody/student", "--private") == 0
    assert "pushed: https://huggingface.co/somebody/student/commit/1" in capsys.readouterr().out
    assert ("somebody/student", {"exist_ok": True, "private": True}) in Hub.asked
    assert Hub.sent == {name: (out / name).read_bytes() for name in FILES}
    assert b'model="somebody/student"' in Hub.sent[CARD]
    model = AduDepthModel.from_pretrained(run)
    model.push_to_hub("somebody/student", token="t", commit_message="again", create_pr=True)
    assert sorted(Hub.sent) == sorted(FILES)
    assert Hub.asked[-3:] == [
        ("token", {"token": "t"}),
        ("somebody/student", {"exist_ok": True, "private": None}),
        ("somebody/student", {"commit_message": "again", "create_pr": True}),
    ]
    monkeypatch.setattr(Hub, "has_card", True)
    model.save_pretrained(tmp_path / "more", push_to_hub=True, repo_id="somebody/student")
    assert sorted(Hub.sent) == sorted(set(FILES) - {CARD}), "a card that is there stays"


def test_a_push_leaves_the_card_that_a_repository_has_unless_the_folder_s_is_somebody_s(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new folder's card, of which nobody had asked for anything, replaced the one that was filled in on the hub."""
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "has_card", True)
    push = ("--push", "somebody/student")

    def sent(folder: Path, *arguments: str) -> tuple[bool, str]:
        assert save(run, folder, *push, *arguments) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("the card of ")]
        assert sorted({*Hub.sent, CARD}) == sorted(FILES)
        return CARD in Hub.sent, "\n".join(told)

    assert sent(tmp_path / "new") == (False, "the card of somebody/student stays as it was")
    card = tmp_path / "new" / CARD
    card.write_text("filled in here")
    assert sent(tmp_path / "new") == (True, f"the card of somebody/student was replaced by {card}")
    assert Hub.sent[CARD] == b"filled in here"
    there = tmp_path / "licensed" / CARD
    told = f"the card of somebody/student was replaced by {there}"
    assert sent(tmp_path / "licensed", "--license", "apache-2.0") == (True, told)
    monkeypatch.setattr(Hub, "has_card", False)
    assert sent(tmp_path / "first") == (True, "")


def test_a_push_without_a_network_is_a_message(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert save(run, tmp_path / "out", "--push", "somebody/student") == 2
    assert "error: somebody/student: cannot be pushed to the hub: " in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES), "what was saved stays"
