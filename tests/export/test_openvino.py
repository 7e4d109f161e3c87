"""OpenVINO's pair of files: never of two exports, run in fp32, and nothing told to anybody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.export.note import KEY, Note
from adu_depth.export.opened import open_exported
from adu_depth.export.openvino_file import settings, write
from adu_depth.inference import Predictor
from adu_depth.stopping import Stopped, end_on_signals
from tests.export.making import needs_openvino, run
from tests.training.tiny import SIZE

pytestmark = needs_openvino  # not importorskip, which imports it, with its telemetry
ROOT = Path(__file__).resolve().parents[2]


def test_weights_of_another_export_are_refused(made: Path, tmp_path: Path) -> None:
    """Of the same network, too: the same layers lie at the same places, and nothing else would tell."""
    assert run("export", made / "light", "--format", "openvino", "--output", tmp_path / "light.xml") == 0
    open_exported(tmp_path / "light.xml")
    weights = bytearray((tmp_path / "light.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "light.bin").write_bytes(weights)
    with pytest.raises(InputError, match=r"light\.bin: expected the weights that belong to light\.xml"):
        open_exported(tmp_path / "light.xml")
    (tmp_path / "light.bin").write_bytes(weights[:1000])
    with pytest.raises(InputError, match=r"light\.xml: expected an OpenVINO model, OpenVINO refuses it: .*weights"):
        open_exported(tmp_path / "light.xml")
    (tmp_path / "light.bin").unlink()
    with pytest.raises(InputError, match=r"light\.bin: cannot be read: No such file"):
        open_exported(tmp_path / "light.xml")


def test_a_model_that_breaks_off_after_its_record_is_refused(made: Path, tmp_path: Path) -> None:
    text = (made / "student.xml").read_text("utf-8")
    (tmp_path / "cut.xml").write_text(text[: text.index(f"<{KEY} ") + 50], "utf-8")
    shutil.copy(made / "student.bin", tmp_path / "cut.bin")
    with pytest.raises(InputError, match=r"cut\.xml: expected an OpenVINO model, OpenVINO refuses it"):
        open_exported(tmp_path / "cut.xml")


def test_a_file_runs_in_fp32_on_any_cpu(made: Path) -> None:
    """By itself OpenVINO takes bf16 where the CPU has it, and is a hundredth off."""
    image = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        expected = Predictor.from_checkpoint(made / "light", "cpu").model(image, None)
        found = open_exported(made / "light.xml")(image, None)
    assert (found.depth / expected.depth - 1).abs().mean() < 2e-3, "half the digits of fp16's weights, none of bf16's"
    assert settings()["INFERENCE_PRECISION_HINT"] == "f32"


def test_what_a_model_says_can_be_read_without_us(made: Path) -> None:
    import openvino

    model = openvino.Core().read_model(made / "teacher.xml")
    names = [[name for one in side for name in one.get_names()] for side in (model.inputs, model.outputs)]
    assert names[0] == ["left", "right", "focal", "baseline", "disparity_offset"]
    assert names[1] == ["depth", "log_scale", "disparity"]
    assert list(model.inputs[0].get_shape()) == [1, 3, *SIZE]
    assert "natural log of the Laplace scale b of ln depth" in model.get_rt_info("output.log_scale").value
    assert json.loads(model.get_rt_info(KEY).value)["kind"] == "teacher"


def test_nothing_is_told_to_openvino_s_makers(made: Path, tmp_path: Path) -> None:
    """Its telemetry makes a number for this user under HOME when it is imported, and sends it."""
    program = (
        "import sys; from adu_depth.export.opened import open_exported; open_exported(sys.argv[1]); "
        "assert 'openvino' in sys.modules; assert not [n for n in sys.modules if n.startswith('openvino_telemetry')]"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "CI": ""}
    subprocess.run([sys.executable, "-c", program, made / "light.xml"], env=environment, check=True)
    assert not (tmp_path / "intel").exists()


def test_a_missing_library_is_named_before_any_work(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run("export", made / "student", "--format", "openvino", "--output", made / "missing" / "a.xml") == 2
    said = capsys.readouterr().err
    assert "expected openvino to be installed" in said
    assert "pip install 'adu-depth[openvino]'" in said
    assert not (made / "missing").exists()
    assert run("predict", made / "student.xml", made / "same" / "left") == 2
    assert "expected openvino to be installed" in capsys.readouterr().err


def test_a_signal_while_openvino_converts_stops_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised in a call from its C++, which makes a RuntimeError of it."""
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    ask = TorchFXPythonDecoder.get_op_type

    def asked(decoder: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return ask(decoder)

    monkeypatch.setattr(TorchFXPythonDecoder, "get_op_type", asked)
    program = torch.export.export(torch.nn.Conv2d(3, 4, 3).eval(), (torch.rand(1, 3, 8, 8),))
    note = Note(
        "student", "fp32", (64, 64), 1, False, True, True, 0.1, 100.0, None, (64, 64), "resize", None, "run", "here"
    )
    with end_on_signals() as signals:
        signals.started()
        with pytest.raises(Stopped):
            write(program, note, tmp_path / "a.xml")
    assert not list(tmp_path.iterdir())
