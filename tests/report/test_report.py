"""report.html: complete, self-contained, honest about which student is better, and safe with any text."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from adu_depth.charts import Series, line_chart, series_of, smooth
from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import ProxiedSample, StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.colour import DEPTH, ERROR
from adu_depth.models.prediction import DepthPrediction
from adu_depth.report import Reference, ScenePanel, write_report
from adu_depth.report.scenes import scene_rows
from adu_depth.report.tables import comparison_rows

NASTY = """<script>alert("x")</script> & 'quoted' "http"""


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def metrics(abs_rel: float, **more: float) -> dict[str, float]:
    return {"abs_rel": abs_rel, "rmse": 40 * abs_rel, "a1": 1 - abs_rel, **more}


def make_report(alone: float = 0.2, distilled: float = 0.15) -> dict[str, Any]:
    return {
        "teacher": metrics(0.03, epe=0.8, d1=6.0),
        "student_alone": metrics(alone),
        "student_distilled": metrics(distilled),
        "seeds": 1,
        "seconds": {"teacher": 180.0, "student_alone": 61.0},
        "environment": {"device": "a processor", "torch": "2.x"},
        "settings": {"student": {"steps": 500, "size": [96, 320]}},
    }


def make_panel(name: str = "scene 1") -> ScenePanel:
    truth = np.full((24, 60), 10.0)
    truth[:6] = 0
    depths = {"teacher": truth * 1.01, "student_alone": truth * 1.2, "student_distilled": truth * 1.1}
    scales = {model: np.full((24, 60), -3.0) for model in depths}
    return ScenePanel(name, np.full((24, 60, 3), 90, np.uint8), truth, truth * (np.arange(60) % 5 == 0), depths, scales)


HISTORY = {
    "teacher": [{"step": i, "total": 9.0 / i, "disparity": 3.0 / i, "learning_rate": 1.0} for i in range(1, 60)],
    "student_alone": [{"step": i, "total": 5.0 / i, "silog": 2.0 / i} for i in range(1, 60)],
    "student_distilled": [{"step": i, "total": 6.0 / i, "silog": 1.0 / i, "feature": 1.0} for i in range(1, 60)],
}


def write(tmp_path: Path, report: dict[str, Any], **more: Any) -> tuple[str, Page]:
    write_report(tmp_path / "report.html", report, **more)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_nothing_outside_the_file_is_asked_for(tmp_path: Path) -> None:
    text, page = write(tmp_path, make_report(), panels=[make_panel()], history=HISTORY)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for tag, attributes in page.tags if "src" in attributes]
    assert len(sources) == 3 + 3 * 3
    for source in sources:
        assert source is not None
        kind, encoded = source.split(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        assert cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR).shape == (24, 60, 3)
    assert page.open == []


def test_a_panel_says_what_depths_are_compared_with_and_takes_no_proxies_for_a_lidar() -> None:
    scene = SyntheticStereo(1, 32, 64)[0]
    assert scene.sparse_depth is not None
    matched = ProxiedSample(**{**vars(scene), "sparse_depth": scene.depth})
    said = {"a network": DepthPrediction(scene.depth[None] + 1, None, features=())}
    panel = ScenePanel.from_sample(matched, said, Reference("a matcher", "differences", dense=False))
    rows = {row["title"]: [picture.caption for picture in row["pictures"]] for row in scene_rows(panel)}
    assert rows["What was given"] == ["Left image", "a matcher"]
    assert [caption.partition(",")[0] for caption in rows["differences"]] == ["a network"]
    assert len(rows) == 3, "it predicts no uncertainty"
    truth = {row["title"]: row["pictures"] for row in scene_rows(ScenePanel.from_sample(scene, said))}
    captions = [picture.caption for picture in truth["What was given"]]
    assert captions[1].startswith("Sparse ground truth")
    assert captions[2] == "Dense ground truth"


def test_the_best_of_any_columns_is_bold_and_a_metric_that_none_has_is_left_out() -> None:
    columns = {"one": {"abs_rel": 0.2, "a1": 0.7, "proxy_d1": 4.0}, "other": {"abs_rel": 0.1, "a1": 0.6}, "none": {}}
    rows = comparison_rows(columns, ("a1", "proxy_d1", "abs_rel", "epe"))
    assert [row["name"] for row in rows] == ["abs_rel", "a1", "proxy_d1"]
    assert [[cell["best"] for cell in row["cells"]] for row in rows] == [
        [False, True, False], [True, False, False], [True, False, False],
    ]  # fmt: skip
    assert [cell["value"] for cell in rows[2]["cells"]] == ["4.00", "–", "–"]
    assert {row["change"] for row in rows} == {None}, "no column for what distillation did"


def test_text_is_escaped_wherever_it_comes_from(tmp_path: Path) -> None:
    report = make_report() | {"settings": {NASTY: NASTY}, "environment": {"device": NASTY}, "seconds": {NASTY: 3.0}}
    report["student_alone"][NASTY] = 1.0
    history = {NASTY: [{"step": 1, NASTY: 2.0}, {"step": 2, NASTY: 2.0}]}
    text, page = write(tmp_path, report, panels=[make_panel(NASTY)], history=history, title=NASTY)
    assert "<script" not in text
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "".join(page.words).count(NASTY) >= 7


@pytest.mark.parametrize(
    ("alone", "distilled", "verb", "bold"),
    [(0.2, 0.15, "lowered", "0.1500"), (0.15, 0.2, "raised", "0.1500"), (0.2, 0.2, "did not change", None)],
)
def test_the_better_student_is_bold_and_the_verdict_says_which(
    tmp_path: Path, alone: float, distilled: float, verb: str, bold: str | None
) -> None:
    text, page = write(tmp_path, make_report(alone, distilled))
    assert f"Distillation {verb} the student" in page.text
    row = re.search(r"<tr><th scope=.row.>abs_rel.*?</tr>", text)
    assert row is not None
    assert re.findall(r"<b>(.*?)</b>", row[0]) == ([] if bold is None else [bold])


def test_more_is_better_for_a1(tmp_path: Path) -> None:
    text, _ = write(tmp_path, make_report(0.2, 0.16))
    row = re.search(r"<tr><th scope=.row.>a1 .*?</tr>", text)
    assert row is not None
    assert re.findall(r"<b>(.*?)</b>", row[0]) == ["0.8400"]
    assert 'class="better">+5.0 %' in row[0]


def test_spread_over_seeds_is_shown_and_weighed(tmp_path: Path) -> None:
    report = make_report() | {"seeds": 3}
    report["student_alone"]["abs_rel_sd"] = 0.03
    report["student_distilled"]["abs_rel_sd"] = 0.04
    _, page = write(tmp_path, report)
    assert "0.2000 ± 0.0300" in page.text
    assert "1.0 times the standard deviation" in page.text  # 0.05 / √(0.03² + 0.04²)
    assert "One seed" in write(tmp_path, make_report())[1].text


def test_settings_seconds_and_environment_are_there(tmp_path: Path) -> None:
    _, page = write(tmp_path, make_report())
    for words in (
        "student.steps 500",
        "student.size 96, 320",
        "teacher 3 min 0 s",
        "Together 4 min 1 s",
        "a processor",
    ):
        assert words in page.text


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    _, page = write(tmp_path, {"teacher": {"abs_rel": 0.1, "rmse": float("nan"), "a1": None}})
    assert "Teacher" in page.text
    for absent in (
        "Student distilled",
        "Distillation lowered",
        "Held-out",
        "Training",
        "Where the time",
        "rmse",
        "nan",
    ):
        assert absent not in page.text
    assert write(tmp_path, {})[1].open == []


def test_a_chart_for_each_loss_term_with_the_runs_that_have_it(tmp_path: Path) -> None:
    text, _ = write(tmp_path, make_report(), history=HISTORY)
    charts = re.findall(r'<figure class="chart">.*?</figure>', text, re.DOTALL)
    found = {re.findall("<b>(.*?)</b>", c)[0]: set(re.findall(r"<text [^>]*>([A-Z].*?)</text>", c)) for c in charts}
    alone, distilled, teacher = "Student alone", "Student distilled", "Teacher (stereo)"
    assert found == {
        "Total loss": {teacher, alone, distilled},
        "Scale-invariant log loss": {alone, distilled},
        "Feature distillation": {distilled},
        "Disparity loss": {teacher},
    }
    assert all('class="line series-2"' in c for c in charts if distilled in c)


def test_a_validation_has_charts_that_call_it_so(tmp_path: Path) -> None:
    losses: list[dict[str, float]] = [{"step": step, "total": 1.0 / step} for step in (1, 2, 3, 4)]
    history = {"run": [*losses, {"step": 2, "validation/abs_rel": 0.3}, {"step": 4, "validation/abs_rel": 0.2}]}
    text, _ = write(tmp_path, make_report(), history=history)
    charts = re.findall(r'<figure class="chart">.*?</figure>', text, re.DOTALL)
    units = {re.findall("<b>(.*?)</b>", c)[0]: "mean over the held-out samples" in c for c in charts}
    assert units == {"Total loss": False, "Validation: abs_rel": True}


def test_lines_stay_in_the_drawing_and_go_where_the_values_go() -> None:
    steps = np.arange(1, 2001, dtype=float)
    svg = line_chart({"falling": Series(steps, 1000.0 / steps - 3.0)}, "loss")
    [points] = re.findall(r'class="line series-0">\s*<path d="M (.*?)"', svg, re.DOTALL)
    x, y = np.array([p.split() for p in points.split("L")], dtype=float).T
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all(), "a falling loss must run downwards on the page"
    assert x.min() >= 0
    assert x.max() <= 560
    assert y.min() >= 0
    assert y.max() <= 300
    assert len(x) <= 402


def test_smoothing_keeps_a_constant_and_halves_noise() -> None:
    assert np.allclose(smooth(np.full(50, 3.0)), 3.0)
    noise = np.random.default_rng(0).normal(size=1000)
    assert smooth(noise).std() < 0.5 * noise.std()


def test_series_leave_out_what_is_not_a_number() -> None:
    rows = [{"step": 1, "a": 1.0}, {"step": 2, "a": float("nan")}, {"step": 3}, {"step": 4, "a": 4.0}]
    series = series_of(rows, "a")
    assert series is not None
    assert (series.steps.tolist(), series.values.tolist()) == ([1, 4], [1, 4])
    assert series_of(rows, "b") is None
    line_chart({"constant": Series(np.array([5.0]), np.array([0.0]))}, "one point")


def test_pictures_of_a_row_share_their_scale(tmp_path: Path) -> None:
    text, _ = write(tmp_path, make_report(), panels=[make_panel()])
    pictures = {}
    for encoded, caption in re.findall(r'base64,([\w+/=]+)" width="60" height="24" alt="(.*?)"', text):
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
        pictures.setdefault(caption.split(",")[0], []).append(pixels[15, 31, ::-1])
    assert (pictures["Dense ground truth"][0] == DEPTH.colourise(np.array([[10.0]]))).all()
    assert (pictures["Student alone"][0] == DEPTH.colourise(np.array([[12.0]]))).all()
    assert (pictures["Student alone"][1] == ERROR.colourise(np.array([[20.0]]))).all()
    assert (pictures["Student distilled"][1] == ERROR.colourise(np.array([[10.0]]))).all()
    assert "Student alone, mean 20.0 %" in text


def test_a_panel_from_a_sample_and_predictions() -> None:
    image, depth = torch.rand(3, 8, 16), torch.full((1, 8, 16), 5.0)
    valid = torch.zeros(1, 8, 16, dtype=torch.bool)
    valid[..., 3:] = True
    camera = Camera(10.0, 10.0, 7.5, 3.5, 0.5)
    sample = StereoSample(image, image, depth, depth, valid, camera, name="a name")
    prediction = DepthPrediction(depth[None] * 2, torch.zeros(1, 1, 8, 16), ())
    panel = ScenePanel.from_sample(sample, {"student_alone": prediction})
    assert panel.name == "a name"
    assert panel.image.shape == (8, 16, 3)
    assert panel.truth is not None
    assert (panel.truth > 0).mean() == 13 / 16
    assert panel.sparse is None
    assert (panel.depths["student_alone"] == 10).all()


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, make_report())
    before = (tmp_path / "report.html").read_bytes()
    whole = Path.write_text

    def half(path: Path, text: str, **more: Any) -> int:
        whole(path, text[: len(text) // 2], **more)
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(InputError, match=r"cannot write .*report\.html: No space left on device"):
        write_report(tmp_path / "report.html", make_report(0.5, 0.4))
    assert (tmp_path / "report.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_without_matplotlib_the_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "abs_rel" in write(tmp_path, make_report(), panels=[make_panel()])[1].text, "only charts need it"
    with pytest.raises(InputError, match="pip install matplotlib"):
        write_report(tmp_path / "report.html", make_report(), history=HISTORY)


def test_what_measures_does_not_import_matplotlib() -> None:
    code = "import sys, adu_depth.cli, adu_depth.quickstart, bench.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_every_template_is_packaged() -> None:
    root = Path(__file__).parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["adu_depth"]
    packaged = {path for pattern in data for path in (root / "adu_depth").glob(pattern)}
    assert set((root / "adu_depth/report/templates").iterdir()) <= packaged
