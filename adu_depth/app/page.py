"""The page itself: its fields, its button, and what they do."""

from __future__ import annotations

import html
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adu_depth.app.networks import Networks
from adu_depth.app.prediction import (
    NUMBERS,
    NUMBERS_OF_CAMERA,
    NUMBERS_OF_POINTS,
    CameraSource,
    Request,
    number_of,
    predict_request,
)
from adu_depth.data.camera_file import CameraFile
from adu_depth.errors import InputError
from adu_depth.inference.colour import DEPTH
from adu_depth.inference.point_cloud import PointCloudConfig

TEMPLATES = Path(__file__).parent / "templates"
MOST_SECTIONS = 500
"""Of a camera.toml, in a list: a browser stands still over thousands. Of more, one is written."""
_KEPT = 24 * 3600  # seconds that a picture lies in the temporary folder at most
# Seen from behind the camera and a little above it, in degrees; on a dark ground, from which all colours stand out.
_CLOUD = {"camera_position": (90, 75, None), "clear_color": (0.09, 0.09, 0.1, 1.0)}
_HINT = "Nothing leaves this machine. Drop a picture, press **Predict**, move the cursor over what comes."


def build_page(gr: Any, networks: Networks, folder: Path, uploads: Path, camera_file: Path | None = None) -> Any:
    """The fields and what they do. gr: the module gradio. folder: for what is made meanwhile. uploads: in it, where
    gradio puts what is dropped."""
    first, folders = networks.get(networks.names[0]), _Folders(folder)
    told = _Told(gr, folder)
    with gr.Blocks(
        title="adu-depth", analytics_enabled=False, fill_width=True, delete_cache=(_KEPT / 4, _KEPT)
    ) as page:
        gr.Markdown(f"# Depth of a picture\n{_HINT}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                network = gr.Dropdown(networks.names, value=networks.names[0], label="Network")
                image = _picture(gr, uploads, "Picture (of a pair the left one)")
                right = _picture(gr, uploads, "Right picture", visible=first.stereo)
                source = gr.Radio(
                    ["none", "numbers", "camera.toml"],
                    value=_first_source(first.needs_camera, camera_file),
                    label="Camera",
                    info="in pixels of the picture; points in space need one, and so does the depth of some networks",
                )
                with gr.Row(visible=source.value == "numbers") as numbers:
                    fx, cx, cy = (_number(gr, name) for name in ("fx", "cx", "cy"))
                    baseline = _number(gr, "baseline", unit="m", visible=first.stereo)
                with gr.Column(visible=source.value == "camera.toml") as from_file:
                    given = None if camera_file is None else str(camera_file)
                    toml = gr.File(label="camera.toml", value=given, file_types=[".toml"])
                    section = gr.Dropdown(label="Section", allow_custom_value=True, **_sections(given))
                with gr.Accordion("Colours and points", open=False):
                    with gr.Row():
                        near = _number(gr, "near", DEPTH.low, "m")
                        far = _number(gr, "far", DEPTH.high, "m")
                    points = gr.Checkbox(True, label="Points in space")
                    with gr.Row():
                        max_depth = _number(gr, "max_depth", PointCloudConfig.max_depth, "m")
                        min_angle = _number(gr, "min_angle", PointCloudConfig.min_angle, "°")
                        max_error = _number(gr, "max_error", unit="%")
                button = gr.Button("Predict", variant="primary")
            with gr.Column(scale=3, min_width=480):
                notes = gr.Markdown()
                view = gr.HTML()
                cloud = gr.Model3D(label="Points", height=520, elem_classes="adu-cloud", **_CLOUD)
                files = gr.Files(label="Files, as adu-depth predict writes them", visible=False, interactive=False)

        def choose(name: str) -> list[Any]:
            with told():
                predictor = networks.get(name)
            return [gr.update(visible=predictor.stereo), gr.update(visible=predictor.stereo)]

        def show_camera(chosen: CameraSource) -> list[Any]:
            return [gr.update(visible=chosen == "numbers"), gr.update(visible=chosen == "camera.toml")]

        def show_sections(file: str | None) -> Any:
            try:
                return gr.update(**_sections(file))
            except InputError as error:  # as an error it would leave the sections of the file before
                gr.Warning(told.text(error), duration=None)
                return gr.update(**_sections(None))

        def predict(name: str, *given: Any) -> list[Any]:
            began = time.perf_counter()
            with told():
                predictor = networks.get(name)
                answer = predict_request(predictor, _request(predictor.stereo, *given), folders.next())
            seconds = f"{time.perf_counter() - began:.1f} s"
            return [
                _notes([*answer.notes, seconds, f"network {predictor.checkpoint}"]),
                answer.view,
                answer.cloud and str(answer.cloud),
                gr.update(value=[str(file) for file in answer.files], visible=True),
            ]

        alone = {"concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private"}
        network.change(choose, network, [right, baseline], **alone)
        source.change(show_camera, source, [numbers, from_file], api_visibility="private")
        toml.change(show_sections, toml, section, api_visibility="private")
        fields = [image, right, toml, source, section, points]
        written = [fx, cx, cy, baseline, near, far, max_depth, min_angle, max_error]
        # An error is told in its corner alone: upon the outputs it would cover what was there before.
        shown = {"show_progress_on": notes, **alone}
        button.click(predict, [network, *fields, *written], [notes, view, cloud, files], **shown)
    return page


class _Folders:
    """A new folder for each request. That of the one before goes: gradio has made copies of what it shows.

    As a generator the handler could clean up itself; but while gradio 6.31 loads what draws the first cloud, a value
    that comes twice, as a generator's last does, or as the field becomes visible, keeps it from being drawn.
    """

    def __init__(self, top: Path) -> None:
        self._top = top
        self._last: Path | None = None

    def next(self) -> Path:
        if self._last is not None:
            shutil.rmtree(self._last, ignore_errors=True)
        self._last = Path(tempfile.mkdtemp(dir=self._top))
        return self._last


class _Told:
    """What is wrong with what was dropped comes up on the page, and stays until it is closed."""

    def __init__(self, gr: Any, folder: Path) -> None:
        self._gr, self._folder = gr, folder

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except (InputError, OSError) as error:
            raise self._gr.Error(self.text(error), duration=None, print_exception=False) from error

    def text(self, error: Exception) -> str:
        """As text, for gradio takes it for HTML, and without our folders."""
        return html.escape(re.sub(rf"{re.escape(str(self._folder))}/(?:[^/\s]+/)*", "", str(error)))


def _request(
    stereo: bool,
    image: str | None,
    right: str | None,
    toml: str | None,
    source: CameraSource,
    section: str | None,
    points: bool,
    *written: str,
) -> Request:
    """What stands in the fields that are seen: what is left in the others does not matter."""
    picture, other, camera_file = (None if file is None else Path(file) for file in (image, right, toml))
    unseen = set() if source == "numbers" else {*NUMBERS_OF_CAMERA}
    unseen |= set() if stereo else {"baseline"}
    unseen |= set() if points else {*NUMBERS_OF_POINTS}
    numbers: dict[str, Any] = {
        name: number_of(NUMBERS[name], text) for name, text in zip(NUMBERS, written, strict=True) if name not in unseen
    }
    return Request(picture, other, camera_file, source, section or "", points, **numbers)


def _notes(lines: list[str]) -> str:
    """One line of text; what could be taken for markup is not."""
    return " · ".join("".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~$" else c for c in line) for line in lines)


def _picture(gr: Any, uploads: Path, label: str, visible: bool = True) -> Any:
    """A field for a picture, whose file is handed on as it came: gradio would open it first, and its message for a
    damaged one is not ours. Nor does it look whether the file is one that was dropped."""
    field = gr.Image(
        label=label, visible=visible, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220
    )

    def dropped(payload: Any) -> str | None:
        if payload is None:
            return None
        file = Path(payload.path or "").resolve()
        if not (file.is_relative_to(uploads.resolve()) and file.is_file()):
            raise gr.Error("picture: expected one that lies on this page: drop it again", print_exception=False)
        return str(file)

    field.preprocess = dropped
    return field


def _first_source(needs_camera: bool, camera_file: Path | None) -> CameraSource:
    if camera_file is not None:
        return "camera.toml"
    return "numbers" if needs_camera else "none"


def _sections(camera_file: str | None) -> dict[str, Any]:
    """The choice of a section of this camera.toml, which is not seen where it has none."""
    sections = [] if camera_file is None else CameraFile(camera_file).sections
    few = len(sections) <= MOST_SECTIONS
    info = None if few else f"{len(sections):,}, too many for a list: write one, or nothing"
    own = ("of the picture's name", "")
    return {"choices": [own, *sections] if few else [own], "value": "", "visible": bool(sections), "info": info}


def _number(gr: Any, name: str, value: float | None = None, unit: str = "", visible: bool = True) -> Any:
    """A field for a number, or for none: gradio's own for numbers shows 0 where there is none, and sends it."""
    label = NUMBERS[name] if name in NUMBERS_OF_CAMERA else NUMBERS[name].capitalize()
    label = f"{label}, {unit}" if unit else label
    return gr.Textbox("" if value is None else f"{value:g}", label=label, min_width=80, visible=visible, max_lines=1)
