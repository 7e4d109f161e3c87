"""`adu-depth report`: what it draws of a training, and what it refuses. A quickstart's page: tests/test_cli.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adu_depth.checkpoint import config_dict
from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from adu_depth.quickstart import SETTINGS, QuickstartConfig
from adu_depth.report.command import ReportConfig, draw_report


def training(run: Path) -> Path:
    """What of a training's folder its page is drawn from; the last row was cut off by a kill."""
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"loop": {"steps": 40}, "data": {"size": [32, 64]}}))
    rows = [json.dumps({"step": step, "total": 1 / step, "silog": 2 / step}) for step in (10, 20, 30)]
    (run / "history.jsonl").write_text("\n".join(rows) + '\n{"step": 40, "tot')
    return run


def test_a_training_s_page_has_its_curves_and_settings_and_no_comparison(tmp_path: Path) -> None:
    page = draw_report(ReportConfig(training(tmp_path / "student"))).read_text(encoding="utf-8")
    assert page.count("<svg") == 2, "total and silog"
    for words in ("Training student", "Total loss", "Scale-invariant log loss", "loop.steps", "32, 64"):
        assert words in page, words
    assert "What the numbers mean" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_folder_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(training(tmp_path / "student"))
    assert "Training student" in draw_report(ReportConfig(Path("."))).read_text(encoding="utf-8")


def test_the_curves_of_a_training_that_runs_are_drawn(tmp_path: Path) -> None:
    run = training(tmp_path / "student")
    with locked(run, "distill"):
        assert "Training student" in draw_report(ReportConfig(run)).read_text(encoding="utf-8")
    (run / SETTINGS).write_text("{}")
    with locked(run, "quickstart"), pytest.raises(InputError, match=r"another process .quickstart.* is writing"):
        draw_report(ReportConfig(run))


def test_only_the_page_is_written(tmp_path: Path) -> None:
    run = training(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (run / "report.html").write_text("an earlier one")
    draw_report(ReportConfig(run))
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert b"Training run" in after.pop("report.html")
    assert after == before


def test_a_folder_that_is_none_of_the_two_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the folder of a quickstart or of a training, found no folder"):
        draw_report(ReportConfig(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"found no settings\.json and no history\.jsonl"):
        draw_report(ReportConfig(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (None, r"this quickstart has not come to its end, there is no report\.json"),
        ("{", r"report\.json"),
        ('{"seeds": "many"}', r"report\.json: seeds: expected a whole number"),
        ('{"seconds": [1]}', r"report\.json: seconds: expected"),
    ],
)
def test_a_quickstart_that_did_not_end_or_is_damaged_is_refused(tmp_path: Path, report: str | None, said: str) -> None:
    (tmp_path / SETTINGS).write_text(json.dumps(config_dict(QuickstartConfig(output=tmp_path))))
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    with pytest.raises(InputError, match=said):
        draw_report(ReportConfig(tmp_path))
    assert not (tmp_path / "report.html").exists()
