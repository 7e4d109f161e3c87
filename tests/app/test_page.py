"""The page as people meet it: a program that serves it, a browser that shows it.

Needs the extra `app`, playwright, and a Chromium on the PATH (`apt-get install chromium`) or in $CHROMIUM; where one of
them is absent, what needs it is skipped and says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adu_depth.app.command import AppConfig
from adu_depth.app.networks import Networks
from adu_depth.app.server import serving
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.data.camera_file import read_camera
from adu_depth.data.image_files import read_png16
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from tests.training.tiny import train_three

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 96, 176
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher, a light student; two pairs."""
    folder = tmp_path_factory.mktemp("page")
    train_three(folder)
    write_samples(SyntheticStereo(2, HEIGHT, WIDTH, seed=1), folder / "pairs", 2)
    return folder


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def program(
    *arguments: object, temporary: Path, code: str = "from adu_depth.entry import main\nmain()"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`adu-depth app …` and the address that it says. It has proxies that lead nowhere."""
    words = [sys.executable, "-c", code, "app", *map(str, arguments), "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    running = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        assert running.stdout is not None
        said = running.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert address is not None, said + (running.communicate(timeout=60)[1] if running.poll() is not None else "")
        yield running, address[0]
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(timeout=60)


def asked(address: str, path: str = "/", host: str | None = None) -> tuple[int, dict[str, str], str]:
    name, port = address.removeprefix("http://").strip("/").split(":")
    connection = HTTPConnection(name, int(port), timeout=30)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace")


def sent(address: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    name, port = address.removeprefix("http://").strip("/").split(":")
    connection = HTTPConnection(name, int(port), timeout=30)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")


class TestProgram:
    def test_it_serves_this_machine_alone_until_it_is_stopped(self, made: Path, tmp_path: Path) -> None:
        pytest.importorskip("gradio", reason="pip install 'adu-depth[app]'")
        port = free_port()
        with program(made / "student", made / "light", "--port", port, temporary=tmp_path) as (running, address):
            assert address == f"http://127.0.0.1:{port}/"
            status, headers, text = asked(address)
            assert status == 200
            assert "adu-depth" in text
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert asked(address, host="evil.example")[0] == 400, "a name that leads here is not this address"
            assert asked(address, "/gradio_api/file=/etc/passwd")[0] in (403, 404)
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            with pytest.raises(OSError, match="refused"):  # another address of this very machine
                socket.create_connection(("127.0.0.2", port), timeout=5)
            assert list(tmp_path.iterdir()), "its own folder"
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=60) == 128 + signal.SIGINT
            assert running.stderr is not None
            assert running.stderr.read().strip() == "stopped by SIGINT"
        assert list(tmp_path.iterdir()) == [], "what was made meanwhile is gone"

    def test_a_page_elsewhere_cannot_send_it_a_file(self, made: Path, tmp_path: Path) -> None:
        pytest.importorskip("gradio", reason="pip install 'adu-depth[app]'")
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        with program(made / "student", temporary=tmp_path) as (_, address):
            own = address.rstrip("/")
            for origin, status in (("https://evil.example", 403), ("http://localhost:3000", 403), (own, 200)):
                answer = sent(address, "/gradio_api/upload", body, {**form, "Origin": origin})
                assert answer[0] == status, origin
            files = [file for file in tmp_path.rglob("*") if file.name == "a.png"]
            assert len(files) == 1, "that of its own page"

    def test_no_file_is_read_that_was_not_dropped(self, made: Path, tmp_path: Path) -> None:
        """Without `meta` gradio does not look whether it is one of its own."""
        pytest.importorskip("gradio", reason="pip install 'adu-depth[app]'")
        secret = made / "pairs" / "left" / "000000.png"
        with program(made / "student", temporary=tmp_path) as (_, address):
            config = json.loads(asked(address, "/config")[2])
            button = max(config["dependencies"], key=lambda dependency: len(dependency["inputs"]))
            for given in ({"path": str(secret)}, {"path": "/etc/hostname"}, {"path": "/dev/zero"}, {"url": "data:,x"}):
                rest = [None, None, "none", "", True, *[""] * 9]
                call = {"data": [str(made / "student"), given, *rest], "fn_index": button["id"], "session_hash": "s"}
                words = {"Content-Type": "application/json"}
                sent(address, "/gradio_api/queue/join", json.dumps(call).encode(), words)
                said = asked(address, "/gradio_api/queue/data?session_hash=s")[2]
                assert "adu-view" not in said
                assert '"success":false' in said
                assert "drop it again" in said, said

    def test_a_signal_while_it_predicts_leaves_nothing_that_was_dropped(self, made: Path, tmp_path: Path) -> None:
        pytest.importorskip("gradio", reason="pip install 'adu-depth[app]'")
        code = (
            "import sys, time\n"
            "import adu_depth.app.page as page\n"
            "def slow(predictor, request, folder):\n"
            "    (folder / 'dropped').write_text('x')\n"
            "    print('predicting', flush=True)\n"
            "    end = time.monotonic() + 60\n"
            "    while time.monotonic() < end: sum(range(10**7))\n"  # as a network: nothing else runs meanwhile
            "page.predict_request = slow\n"
            "from adu_depth.entry import main\n"
            "main()\n"
        )
        with program(made / "student", temporary=tmp_path, code=code) as (running, address):
            config = json.loads(asked(address, "/config")[2])
            button = max(config["dependencies"], key=lambda dependency: len(dependency["inputs"]))
            data = [str(made / "student"), None, None, None, "none", "", True, *[""] * 9]
            call = {"data": data, "fn_index": button["id"], "session_hash": "s"}
            sent(address, "/gradio_api/queue/join", json.dumps(call).encode(), {"Content-Type": "application/json"})
            assert running.stdout is not None
            assert running.stdout.readline() == "predicting\n"
            assert list(tmp_path.rglob("dropped"))
            running.send_signal(signal.SIGTERM)
            assert running.wait(timeout=60) == 128 + signal.SIGTERM
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--port", "0"], "port"),
            (["--port", "65536"], "port"),
            (["--camera", "nowhere.toml"], "nowhere.toml"),
            (["--camera", "camera.txt"], "camera: expected a file ending in .toml"),
            (["--size", "huge"], "size"),
            (["nothing-there"], "nothing-there does not exist"),
        ],
    )
    def test_what_it_cannot_begin_with_is_told(
        self, words: list[str], message: str, made: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("gradio", reason="pip install 'adu-depth[app]'")
        with pytest.raises(SystemExit) as ended:
            main(["app", str(made / "student"), *words])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_port_that_is_taken_is_told(self, made: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with (
                pytest.raises(InputError, match=f"port: {port} is taken"),
                serving(Networks([made / "student"], "cpu"), port),
            ):
                pass

    def test_without_a_run_it_says_what_it_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(["app"])
        assert ended.value.code == 2
        assert "no run is below runs/" in capsys.readouterr().err

    def test_without_gradio_it_says_how_to_install_it(self, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gradio", None)
        with (
            pytest.raises(InputError, match=r"pip install 'adu-depth\[app\]'"),
            serving(Networks([made / "student"], "cpu"), None),
        ):
            pass

    def test_a_port_of_another_kind_is_refused(self) -> None:
        with pytest.raises(InputError, match="port: expected a whole number"):
            AppConfig(port="7860")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser's page that shows ours; `page.asked_elsewhere` are addresses that it asked outside of this machine."""
    pytest.importorskip("gradio", reason="pip install 'adu-depth[app]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH (apt-get install chromium) nor in $CHROMIUM")
    folder = tmp_path_factory.mktemp("served")
    networks = [made / "student", made / "teacher", made / "light"]
    with program(*networks, temporary=folder) as (_, address), playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        opened = browser.new_page(viewport={"width": 1500, "height": 1200})
        opened.set_default_timeout(60_000)
        elsewhere: list[str] = []
        opened.on("request", lambda r: elsewhere.append(r.url) if _is_elsewhere(r.url, address) else None)
        opened.asked_elsewhere = elsewhere
        opened.failures = []
        opened.on("pageerror", lambda error: opened.failures.append(str(error)))
        opened.goto(address)
        opened.get_by_role("button", name="Predict").wait_for()
        yield opened
        browser.close()


def _is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def choose_network(page: Any, path: Path) -> None:
    page.get_by_role("combobox", name="Network").click()
    page.get_by_role("option", name=str(path), exact=True).click()


def drop(page: Any, label: str, file: Path) -> None:
    """Puts a file into the field of that name in place of what was there."""
    field = page.locator(
        ".block", has=page.locator(f"label:has-text('{label}'), [data-testid=block-label]:has-text('{label}')")
    ).last
    field.wait_for()  # it may only just come up
    field.locator("input[type=file], [aria-label=Clear]").first.wait_for(state="attached")
    if field.get_by_label("Clear").count():
        field.get_by_label("Clear").first.click()
    field.locator("input[type=file]").first.set_input_files(str(file))


def number_of_view(page: Any) -> str | None:
    view = page.locator(".adu-view")
    return None if view.count() == 0 else str(view.get_attribute("data-number"))


def predict(page: Any) -> None:
    """Presses the button and waits for a view that was not there before."""
    before = number_of_view(page)
    page.get_by_role("button", name="Predict").click()
    _wait_until(lambda: number_of_view(page) not in (before, None), "a view comes")
    assert page.locator(".adu-reading").inner_text().startswith("Move the cursor"), "nothing of the view before stays"
    assert page.locator(".adu-label:visible").count() == 0


def told(page: Any, kind: str = "error") -> str:
    """What comes up where something is wrong; it is closed again."""
    toast = page.locator(f".toast-body.{kind}").first
    toast.wait_for()
    text = str(toast.inner_text())
    toast.locator("button").click()
    toast.wait_for(state="detached")
    return text


def read_at(page: Any, panel: int, column: int, row: int, size: tuple[int, int]) -> str:
    """What the page reads with the cursor over this pixel of a panel."""
    box = page.locator(".adu-panel").nth(panel).bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / size[1], box["y"] + (row + 0.5) * box["height"] / size[0]
    )
    return str(page.locator(".adu-reading").inner_text())


def expected_files(made: Path, network: str, source: Path, output: Path, *words: object) -> Path:
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in ("predict", made / network, source, "--device", "cpu", "--output", output, *words)])
    assert not ended.value.code
    return output


class TestInABrowser:
    def test_a_picture_is_dropped_and_the_cursor_reads_what_predict_writes(
        self, page: Any, made: Path, tmp_path: Path
    ) -> None:
        picture = made / "pairs" / "left" / "000001.png"
        choose_network(page, made / "student")
        page.get_by_label("none").check()
        drop(page, "Picture (of a pair", picture)
        predict(page)
        output = expected_files(made, "student", made / "pairs" / "left", tmp_path / "out")
        depth = read_png16(output / "000001_depth.png")
        for panel, column, row in ((0, 3, 5), (1, 100, 60), (2, WIDTH - 1, HEIGHT - 1)):
            text = read_at(page, panel, column, row, (HEIGHT, WIDTH))
            found = re.match(rf"column {column}, row {row}: ([\d.]+) m, ± ([\d.]+) % expected", text)
            assert found is not None, text
            assert abs(float(found[1]) - depth[row, column]) <= 1 / 512 + 0.005
        assert not page.get_by_text("Files, as adu-depth predict writes them").is_hidden()
        assert "no points in space" in page.locator("body").inner_text()
        page.screenshot(path=str(tmp_path / "student.png"), full_page=True)
        assert page.failures == []

    def test_arrow_keys_read_the_pixel_beside(self, page: Any) -> None:
        read_at(page, 0, 10, 10, (HEIGHT, WIDTH))
        page.locator(".adu-panel").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        assert page.locator(".adu-reading").inner_text().startswith("column 11, row 20: ")

    def test_a_pair_with_its_camera_file_has_points(self, page: Any, made: Path, tmp_path: Path) -> None:
        pairs = made / "pairs"
        choose_network(page, made / "teacher")
        page.locator("[data-testid=block-label]", has_text="Right picture").wait_for()
        page.get_by_label("camera.toml", exact=True).check()
        drop(page, "Picture (of a pair", pairs / "left" / "000000.png")
        drop(page, "Right picture", pairs / "right" / "000000.png")
        drop(page, "camera.toml", pairs / "camera.toml")
        predict(page)
        depth = read_png16(expected_files(made, "teacher", pairs, tmp_path / "out") / "000000_depth.png")
        camera = read_camera(pairs / "camera.toml", "000000", (HEIGHT, WIDTH))
        text = read_at(page, 1, 40, 70, (HEIGHT, WIDTH))
        found = re.search(r"x (-?[\d.]+) m, y (-?[\d.]+) m, z ([\d.]+) m", text)
        assert found is not None, text
        x, y, z = map(float, found.groups())
        assert abs(z - depth[70, 40]) <= 1 / 512 + 0.005
        assert abs(x - (40 - float(camera.cx)) * z / float(camera.fx)) <= 0.01
        assert abs(y - (70 - float(camera.cy)) * z / float(camera.fy)) <= 0.01
        assert page.get_by_label("Section").is_hidden(), "this camera.toml has none"
        canvas = page.locator("canvas").first
        canvas.wait_for()
        _wait_until(lambda: _colours_of(canvas.screenshot()) > 50, "the points are drawn")
        page.screenshot(path=str(tmp_path / "teacher.png"), full_page=True)
        assert page.failures == []

    def test_what_is_wrong_comes_up_and_what_was_there_stays(self, page: Any, made: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken.png"
        broken.write_bytes((made / "pairs" / "left" / "000000.png").read_bytes()[:300])
        choose_network(page, made / "light")
        page.get_by_label("none").check()
        drop(page, "Picture (of a pair", broken)
        page.get_by_role("button", name="Predict").click()
        text = told(page)
        assert "broken.png" in text
        assert str(made) not in text
        assert page.locator(".adu-view").count() == 1
        assert page.locator(".adu-view").is_visible(), "nothing lies over it"
        drop(page, "Picture (of a pair", made / "pairs" / "left" / "000000.png")
        predict(page)
        assert page.locator(".adu-panel").count() == 2, "a network without uncertainty"
        assert page.locator("canvas").count() == 0, "no points without a camera"

    def test_what_a_file_says_comes_up_as_text_and_fields_that_are_not_seen_do_not_matter(
        self, page: Any, made: Path, tmp_path: Path
    ) -> None:
        choose_network(page, made / "student")
        page.get_by_label("numbers", exact=True).check()
        page.get_by_label("fx", exact=True).fill("abc")
        page.get_by_role("button", name="Predict").click()
        assert "fx: expected a number such as 721.5, or nothing, got 'abc'" in told(page)
        page.get_by_label("camera.toml", exact=True).check()
        hostile = tmp_path / "camera.toml"
        hostile.write_text("fx = \"<img src='x' onerror='window.hit=1'>\"\n")
        drop(page, "camera.toml", hostile)
        text = told(page, "warning")
        assert "<img src=" in text, "as text"
        assert "/gradio/" not in text
        page.get_by_label("none").check()
        predict(page)
        assert page.evaluate("window.hit") is None
        page.get_by_label("numbers", exact=True).check()
        page.get_by_label("fx", exact=True).fill("")

    def test_nothing_is_asked_of_another_machine(self, page: Any) -> None:
        page.reload()
        page.get_by_role("button", name="Predict").wait_for()
        page.wait_for_load_state("networkidle")
        assert page.asked_elsewhere == []


def _wait_until(holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.5)


def _colours_of(png: bytes) -> int:
    """How many colours a picture has: a canvas without points has one."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return len(np.unique(picture.reshape(-1, 3), axis=0))
