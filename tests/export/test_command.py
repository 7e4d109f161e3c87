"""What `adu-depth export` takes care of by itself: two sizes of a file for any, names of other runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adu_depth.export import command
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
