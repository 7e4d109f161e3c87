"""The page itself: its fields, its button, and the server on this machine's own address."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from adu_depth.app.networks import Networks
from adu_depth.app.prediction import NUMBERS, CameraSource, Request, number_of, predict_request
from adu_depth.data.camera_file import CameraFile
from adu_depth.errors import InputError
from adu_depth.export.extras import needed
from adu_depth.inference.colour import DEPTH
from adu_depth.inference.point_cloud import PointCloudConfig

ADDRESS = "127.0.0.1"
"""The page has no password and reads any file that is dropped on it: nobody else's machine reaches it."""
FIRST_PORT, PORTS = 7860, 100
_TEMPLATES = Path(__file__).parent / "templates"
# Nothing of the page comes from, or goes to, anywhere else: the browser is told so, whatever gradio's own page asks.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
# Seen from behind the camera and a little above it, in degrees; on a dark ground, from which all colours stand out.
_CLOUD = {"camera_position": (90, 75, None), "clear_color": (0.09, 0.09, 0.1, 1.0)}
_HINT = "Nothing leaves this machine. Drop a picture, press **Predict**, move the cursor over what comes."


@contextmanager
def serving(networks: Networks, port: int | None, camera_file: Path | None = None) -> Iterator[str]:
    """The page's address, which answers within the block. port: None takes the first free one from 7860.

    Raises InputError where gradio is not installed, and for a port that is taken.
    """
    port = _free_port() if port is None else _require_free(port)
    with tempfile.TemporaryDirectory(prefix="adu-depth-app-") as folder:
        gr = _gradio(folder)
        page = build_page(gr, networks, Path(folder), camera_file)
        try:
            _, address, _ = page.launch(
                server_name=ADDRESS,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                show_error=True,
                ssr_mode=False,
                mcp_server=False,
                footer_links=[],
                app_kwargs={"middleware": _middleware()},
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=_template("viewer.css"),
                head=f"<script>{_template('viewer.js')}</script>",
            )
            yield address
        finally:
            page.close(verbose=False)


def build_page(gr: Any, networks: Networks, folder: Path, camera_file: Path | None = None) -> Any:
    """The fields and what they do. gr: the module gradio. folder: for what is made meanwhile."""
    first, folders = networks.get(networks.names[0]), _Folders(folder)
    with gr.Blocks(title="adu-depth", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# Depth of a picture\n{_HINT}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                network = gr.Dropdown(networks.names, value=networks.names[0], label="Network")
                image = _as_it_is(gr.Image(label="Picture (of a pair the left one)", **_picture_options()))
                right = _as_it_is(gr.Image(label="Right picture", visible=first.stereo, **_picture_options()))
                source = gr.Radio(
                    [("none", "none"), ("numbers", "numbers"), ("camera.toml", "camera.toml")],
                    value=_first_source(first.needs_camera, camera_file),
                    label="Camera",
                    info="in pixels of the picture; points in space need one, and so does the depth of some networks",
                )
                with gr.Row(visible=source.value == "numbers") as numbers:
                    fx, cx, cy = (_number(gr, name) for name in ("fx", "cx", "cy"))
                    baseline = _number(gr, "baseline, m", visible=first.stereo)
                with gr.Column(visible=source.value == "camera.toml") as from_file:
                    given = None if camera_file is None else str(camera_file)
                    toml = gr.File(label="camera.toml", value=given, file_types=[".toml"])
                    section = gr.Dropdown(label="Section", **_sections(given))
                with gr.Accordion("Colours and points", open=False):
                    with gr.Row():
                        near = _number(gr, "Colours from, m", DEPTH.low)
                        far = _number(gr, "to, m", DEPTH.high)
                    points = gr.Checkbox(True, label="Points in space")
                    with gr.Row():
                        max_depth = _number(gr, "Points up to, m", PointCloudConfig.max_depth)
                        min_angle = _number(gr, "Edges, degrees", PointCloudConfig.min_angle)
                        max_error = _number(gr, "Largest error, %")
                button = gr.Button("Predict", variant="primary")
            with gr.Column(scale=3, min_width=480):
                notes = gr.Markdown()
                view = gr.HTML(elem_id="view")
                cloud = gr.Model3D(label="Points", height=520, **_CLOUD)
                files = gr.Files(label="Files, as adu-depth predict writes them", visible=False, interactive=False)

        one_at_a_time: dict[str, Any] = {
            "concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private",
        }  # fmt: skip

        def choose(name: str) -> list[Any]:
            with _told(gr):
                predictor = networks.get(name)
            return [gr.update(visible=predictor.stereo), gr.update(visible=predictor.stereo)]

        def show_camera(chosen: CameraSource) -> list[Any]:
            return [gr.update(visible=chosen == "numbers"), gr.update(visible=chosen == "camera.toml")]

        def show_sections(file: str | None) -> Any:
            with _told(gr):
                return gr.update(**_sections(file))

        def predict(name: str, *given: Any) -> list[Any]:
            began = time.perf_counter()
            with _told(gr):
                request = _request(*given)
                predictor = networks.get(name)
                answer = predict_request(predictor, request, folders.next())
            seconds = f"{time.perf_counter() - began:.1f} s"
            return [
                _notes([*answer.notes, seconds, f"network {predictor.checkpoint}"]),
                answer.view,
                answer.cloud and str(answer.cloud),
                gr.update(value=[str(file) for file in answer.files], visible=True),
            ]

        network.change(choose, network, [right, baseline], **one_at_a_time)
        source.change(show_camera, source, [numbers, from_file], api_visibility="private")
        toml.change(show_sections, toml, section, api_visibility="private")
        fields = [image, right, toml, source, section, points]
        written = [fx, cx, cy, baseline, near, far, max_depth, min_angle, max_error]
        button.click(predict, [network, *fields, *written], [notes, view, cloud, files], **one_at_a_time)
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


def _request(
    image: str | None,
    right: str | None,
    toml: str | None,
    source: CameraSource,
    section: str,
    points: bool,
    *written: str,
) -> Request:
    picture, other, camera_file = (None if file is None else Path(file) for file in (image, right, toml))
    numbers: dict[str, Any] = {
        name: number_of(shown, text) for (name, shown), text in zip(NUMBERS.items(), written, strict=True)
    }
    return Request(picture, other, camera_file, source, section, points, **numbers)


def _sections(camera_file: str | None) -> dict[str, Any]:
    """The choice of a section of this camera.toml, which is not seen where it has none."""
    sections = [] if camera_file is None else CameraFile(camera_file).sections
    return {"choices": [("of the picture's name", ""), *sections], "value": "", "visible": bool(sections)}


def _number(gr: Any, label: str, value: float | None = None, visible: bool = True) -> Any:
    """A field for a number, or for none: gradio's own for numbers shows 0 where there is none, and sends it."""
    return gr.Textbox("" if value is None else f"{value:g}", label=label, min_width=80, visible=visible, max_lines=1)


def _notes(lines: list[str]) -> str:
    """One line of text; what could be taken for markup is not."""
    return " · ".join("".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~$" else c for c in line) for line in lines)


def _picture_options() -> dict[str, Any]:
    return {"type": "filepath", "image_mode": None, "sources": ["upload", "clipboard"], "height": 220}


def _as_it_is(component: Any) -> Any:
    """An image's file is handed on as it came: gradio would open it first, and its message for a damaged one is not
    ours."""
    component.preprocess = lambda payload: None if payload is None else payload.path
    return component


def _first_source(needs_camera: bool, camera_file: Path | None) -> CameraSource:
    if camera_file is not None:
        return "camera.toml"
    return "numbers" if needs_camera else "none"


@contextmanager
def _told(gr: Any) -> Iterator[None]:
    """What is wrong with what was dropped comes up on the page, and stays until it is closed."""
    try:
        yield
    except (InputError, OSError) as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def _gradio(folder: str) -> Any:
    """The module, told before it is imported that nothing is to be sent anywhere, and where its copies go."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "gradio")
    for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own address once, by a proxy if there is one
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), ADDRESS, "localhost"]))
    return needed("gradio", "app", "the page")


def _middleware() -> list[Any]:
    from starlette.datastructures import MutableHeaders
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    class OwnAddressOnly:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
                await send(message)

            await self.app(scope, receive, with_policy)

    # A page elsewhere can make a browser ask this address under a name of its own, but not under this one.
    return [Middleware(TrustedHostMiddleware, allowed_hosts=[ADDRESS, "localhost"]), Middleware(OwnAddressOnly)]


@cache
def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _is_free(port):
            return port
    raise InputError(f"port: none of {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free: name another by --port")


def _require_free(port: int) -> int:
    if not _is_free(port):
        raise InputError(f"port: {port} is taken by another program, or is not yours to take: name another by --port")
    return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((ADDRESS, port))
        except OSError:
            return False
    return True
