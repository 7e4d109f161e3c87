"""What `adu-depth export` takes care of by itself: two sizes of a file for any, names of other runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adu_depth.errors import InputError
from adu_depth.export import command
from adu_depth.export.command import output_of
from adu_depth.export.config import ExportConfig
from adu_depth.export.note import KEY
from adu_depth.export.opened import ExportedNetwork
from adu_depth.models.prediction import DepthPrediction
from tests.export.making import run
from tests.training.tiny import SIZE


def test_a_file_for_any_size_that_is_right_at_the_run_s_alone_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int]] = []

    class Wrong(ExportedNetwork):
        """As if a length of the image that it was captured with had stayed in the graph."""

        def forward(self, *given: Any) -> DepthPrediction:
            right = super().forward(*given)
            asked.append((given[0].shape[-2], given[0].shape[-1]))
            return right if asked[-1] == asked[0] else replace(right, depth=right.depth * 1.01)

    monkeypatch.setattr(command, "ExportedNetwork", Wrong)
    arguments = ("export", trained / "student", "--format", "torch-export", "--dynamic", "--images", trained / "same")
    assert run(*arguments, "--output", tmp_path / "a.pt2") == 2
    said = capsys.readouterr()
    assert "the file's depth is not PyTorch's" in said.err
    assert asked[0] == (SIZE[0] + 1, SIZE[1]), "the run's size, of more than one cell"
    others = set(asked) - {asked[0]}
    assert len(others) == 1
    assert all(height % 2 and width % 2 and width != SIZE[1] for height, width in others)
    assert not (tmp_path / "a.pt2").exists()


def test_a_run_of_the_same_name_elsewhere_is_not_overwritten(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "runs" / "exports" / "student.pt2"
    other.parent.mkdir(parents=True)
    other.write_text("of another run")
    assert run("export", trained / "student", "--format", "torch-export") == 2
    assert "runs/exports/student.pt2 is there already" in capsys.readouterr().err
    assert other.read_text() == "of another run"


MODEL = f'<?xml version="1.0"?><net><rt_info><{KEY} value="" /></rt_info></net>'


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("model", [None, MODEL.replace(KEY, "theirs"), b"\xff\xfe"])
def test_weights_that_are_not_of_a_model_of_ours_are_not_replaced(
    named: bool, model: str | bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "exports" / "student.xml"
    path.parent.mkdir(parents=True)
    path.with_suffix(".bin").write_text("somebody's")
    if model is not None:
        path.write_bytes(model if isinstance(model, bytes) else model.encode())
    config = ExportConfig(tmp_path / "student", format="openvino", output=path if named else None)
    with pytest.raises(InputError, match=r"output: .*student\.bin .*student\.xml" if named else "is there already"):
        output_of(config)


def test_a_model_of_ours_is_replaced_with_its_weights_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    config = ExportConfig(tmp_path / "student", format="openvino", output=path)
    assert output_of(config) == path
    path.write_text(MODEL)
    path.with_suffix(".bin").write_bytes(b"its weights")
    assert output_of(config) == path
    onnx = ExportConfig(tmp_path / "student", output=tmp_path / "a.onnx")
    assert output_of(onnx) == tmp_path / "a.onnx", "whose .bin beside it is nothing to it"
