"""Results as files: whole or not at all, checked when read, added to by a later run, and shown as Markdown and SVG."""

from __future__ import annotations

import copy
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.errors import InputError
from bench.harness.environment import measured_environment
from bench.harness.implementations import EAGER, OURS
from bench.harness.peaks import least_microseconds
from bench.harness.result import Result, check_result, new_result, read_result, save_result
from bench.harness.statistics import summary
from bench.harness.table import case_table, result_table
from bench.plots import memory_bars, points_of, roofline, save, speed_bars
from bench.report import ReportCommand, write_report
from tests.bench import planted
from tests.bench.planted import PlantedSuite, case_of

draws = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")
PEAKS = {"copy": 4e12, "bfloat16": 8e14, "float32": 5e13}


def row(name: str, microseconds: float, **more: Any) -> dict[str, Any]:
    times = {"forward": summary([microseconds * 0.4] * 5), "total": summary([microseconds] * 5)}
    return {"name": name, "status": "measured", "times": times, "method": "events", "peak_bytes": 2**20, **more}


def invented(peaks: dict[str, float] | None = None) -> Result:
    """A case in which ours loses to eager, a refused peer, and a failed compilation."""
    result = new_result("planted", "gpu", {"device": "a device", "sources": "0"}, "")
    result |= {"roofs": peaks, "complete": True}
    share = {"share_of_roof": {"forward": 0.5, "total": 0.25}} if peaks else {}
    result["cases"].append(
        {
            "name": "one | case",
            "dtype": "float32",
            "shape": {"n": 1},
            "work": {"forward_bytes": 400, "backward_bytes": 600, "forward_flops": 2000, "backward_flops": 3000},
            "rows": [
                row(OURS, 400.0, **share),
                row(EAGER, 200.0),
                {"name": "m:f", "status": "refused", "reason": "parity failed: output 0"},
                {"name": "compiled reference", "status": "failed", "reason": "OutOfMemoryError: no | memory"},
            ],
        }
    )
    return result


def test_a_result_comes_back_as_it_was_written(tmp_path: Path):
    result = invented(PEAKS)
    save_result(tmp_path / "a.json", result)
    assert read_result(tmp_path / "a.json") == result
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def damaged(change: str) -> Any:
    value: Any = copy.deepcopy(invented())
    if change == "schema":
        value["schema"] = 99
    elif change == "no cases":
        del value["cases"]
    elif change == "status":
        value["cases"][0]["rows"][0]["status"] = "fast"
    elif change == "refused with times":
        value["cases"][0]["rows"][2]["times"] = {"total": summary([1.0])}
    elif change == "measured without times":
        del value["cases"][0]["rows"][0]["times"]
    else:
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("schema", "expected schema 1, got 99"),
        ("no cases", "cases must be list, got nothing"),
        ("status", "status is 'fast'"),
        ("refused with times", "refused, but with times"),
        ("measured without times", "measured, but without times"),
        ("a list", "expected an object, got list"),
    ],
)
def test_what_is_no_result_is_refused(change: str, message: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(damaged(change)))
    with pytest.raises(InputError, match=re.escape(message)):
        read_result(path)


def test_a_half_written_file_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"schema": 1,')
    with pytest.raises(InputError, match=r"a\.json: expected a benchmark's JSON result"):
        read_result(tmp_path / "a.json")


def test_a_run_goes_on_where_one_was_cut_short(tmp_path: Path):
    output = tmp_path / "planted.json"
    first, second = (case_of(name=name) for name in ("first", "second"))
    options: dict[str, Any] = {"compile": ("none",), "seconds": 0.01, "output": output}
    PlantedSuite(planted=(first,), **options).run()
    before = read_result(output)["cases"][0]
    told: list[str] = []
    result = PlantedSuite(planted=(first, second), **options).run(told.append)
    assert result["cases"][0] == before  # not measured again: the very same times
    assert [case["name"] for case in result["cases"]] == ["first", "second"]
    assert read_result(output) == result
    assert result["complete"]


def test_every_case_is_on_disk_before_the_next_begins(tmp_path: Path):
    output = tmp_path / "planted.json"
    seen: list[int] = []

    def look(*maps: Any) -> Any:
        seen.append(len(read_result(output)["cases"]) if output.exists() else 0)
        return planted.product(*maps)

    cases = (case_of(name="first"), case_of(look, name="second"))
    PlantedSuite(planted=cases, compile=("none",), seconds=0.01, output=output).run()
    assert set(seen) == {1}


def test_a_case_whose_reference_does_not_run_is_told_and_the_others_are_measured(tmp_path: Path):
    """No memory for the reference in fp64, say: it must not cost the cases after it."""
    bad = case_of(name="bad", reference=planted.breaks)
    suite = PlantedSuite(planted=(bad, case_of()), output=tmp_path / "a.json", compile=("none",))
    result = suite.run()
    assert result["complete"]
    (failed,) = result["cases"][0]["rows"]
    assert "in breaks" in failed.pop("traceback")
    assert failed == {"name": EAGER, "status": "failed", "reason": "RuntimeError: planted"}
    assert {row["status"] for row in result["cases"][1]["rows"]} == {"measured"}
    assert "failed: RuntimeError: planted" in result_table(read_result(tmp_path / "a.json"))
    with pytest.raises(SystemExit):
        suite.main()


def test_a_result_of_other_code_is_not_added_to(tmp_path: Path):
    output = tmp_path / "planted.json"
    suite = PlantedSuite(compile=("none",), seconds=0.01, output=output)
    suite.run()
    other = read_result(output)
    other["environment"]["sources"] = "of another commit"
    save_result(output, other)
    with pytest.raises(InputError, match="holds a result of other code"):
        suite.run()
    assert read_result(output) == other


def test_an_unknown_case_is_named_with_those_there_are():
    with pytest.raises(InputError, match="there are: planted, fp32"):
        PlantedSuite(case=("nothing",)).run()


def test_the_table_shows_losses_and_refusals_like_the_rest():
    table = case_table(invented(PEAKS)["cases"][0])
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("| ")}
    assert "×0.50" in rows[OURS]
    assert "400 (400–400) µs" in rows[OURS]
    assert "25%" in rows[OURS]
    assert "×1.00" in rows[EAGER]
    assert "refused: parity failed: output 0" in rows["m:f"]
    assert "no \\| memory" in rows["compiled reference"]
    assert len({line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}) == 1


def test_the_notice_stands_above_the_numbers():
    result = invented()
    result["notice"] = "CPU ONLY: look"
    text = result_table(result)
    assert 0 < text.index("**CPU ONLY: look**") < text.index("### one")
    result["complete"] = False
    assert "Cut short" in result_table(result)


def bars_of(picture: Any) -> list[dict[str, float]]:
    """Where the bars lie on the paper."""
    places = [bar.get_window_extent() for bar in picture.axes[0].patches]
    return [{"x": place.x0, "width": place.width} for place in places]


@draws
def test_a_loss_is_a_bar_to_the_left_of_one():
    result = invented()
    result["cases"][0]["rows"].append(row("quick", 50.0))
    slow, fast = bars_of(speed_bars([result]))
    assert slow["x"] + slow["width"] == pytest.approx(fast["x"], abs=0.2)  # they meet at ×1
    assert fast["width"] == pytest.approx(2 * slow["width"], rel=0.01)  # ×4 is twice as far as ×½


@draws
def test_memory_has_a_bar_for_everyone_measured():
    assert len(bars_of(memory_bars([invented()]))) == 2


@draws
def test_a_case_that_two_stages_timed_is_named_once():
    later = invented()
    later["cases"][0]["rows"] = [row(OURS, 100.0), row(EAGER, 200.0)]
    picture = speed_bars([invented(), later])
    assert picture is not None
    assert [label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in picture.axes[0].get_yticklabels()] == [
        "one | case"
    ]
    assert [text.get_text() for text in picture.axes[0].texts] == ["×2.00"]


@draws
def test_a_roofline_needs_a_roof_of_the_same_run(tmp_path: Path):
    assert roofline([invented()]) is None
    picture = roofline([invented(PEAKS)])
    assert picture is not None
    save(picture, tmp_path / "one.svg")
    assert "25% of the roof" in (tmp_path / "one.svg").read_text()


def test_a_point_stands_at_its_intensity_and_rate():
    (point,) = points_of(invented(PEAKS))
    assert point.intensity == pytest.approx(5.0)
    assert point.rate == pytest.approx(5000 / 400e-6)


def test_the_least_time_is_the_larger_of_two():
    assert least_microseconds(PEAKS, 4_000_000, 0, "float32", False) == pytest.approx(1.0)
    assert least_microseconds(PEAKS, 4_000_000, 16 * 10**8, "bfloat16", True) == pytest.approx(2.0)
    assert least_microseconds(PEAKS, 4_000_000, 16 * 10**8, "bfloat16", False) == pytest.approx(1.0)
    assert least_microseconds(None, 4_000_000, 0, "float32", False) is None


@draws
def test_the_same_result_gives_the_same_file(tmp_path: Path):
    for name in ("one.svg", "two.svg"):
        picture = roofline([invented(PEAKS)])
        assert picture is not None
        save(picture, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_without_matplotlib_the_tables_are_written_and_the_reason_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("bench.report.find_spec", lambda name: None)
    write_report(tmp_path, [invented(PEAKS)])
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert "### one | case" in (tmp_path / "report.md").read_text()
    assert "matplotlib is not installed" in capsys.readouterr().err


@draws
def test_a_report_from_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_result(tmp_path / "a.json", invented(PEAKS))
    ReportCommand((tmp_path / "a.json",), tmp_path / "report").main()
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["memory.svg", "report.md", "roofline.svg", "speed.svg"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "roofline.svg" in text
    assert "### one | case" in text
    assert "report.md" in capsys.readouterr().out
    write_report(tmp_path / "report", [invented()])  # no roof any more: its picture would show other numbers
    assert not (tmp_path / "report" / "roofline.svg").exists()
    assert "No roofline" in (tmp_path / "report" / "report.md").read_text()


def test_a_report_of_nothing_says_so():
    with pytest.raises(InputError, match="name one or more"):
        ReportCommand(()).main()


def test_an_invented_result_passes_its_own_check():
    check_result(invented(), "here")


def test_the_commit_that_is_named_is_taken_whatever_checkout_lies_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADU_COMMIT", "abc1234")
    found = measured_environment(torch.device("cpu"))
    assert (found["commit"], found["dirty"]) == ("abc1234", False)
