"""A network in a file gives what the network gives, by `predict` and `evaluate` too; bad input says what is wrong."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adu_depth.data import SyntheticStereo
from adu_depth.errors import InputError
from adu_depth.export import command, onnx_file, torch_export_file
from adu_depth.export.extras import quiet
from adu_depth.export.graph import StudentGraph, TensorGraph, capture
from adu_depth.export.note import KEY, Note
from adu_depth.export.opened import open_exported
from adu_depth.geometry import stack_cameras
from adu_depth.inference import Predictor
from adu_depth.models.aggregation import Aggregation
from adu_depth.stopping import Stopped, end_on_signals
from tests.export.making import HAS, maps, needs_onnx, of_file, run
from tests.training.tiny import SIZE


@pytest.mark.parametrize(
    ("name", "kind", "images", "options"),
    [
        of_file("teacher.onnx", "teacher", "other", ()),
        of_file("teacher.xml", "teacher", "other", ()),
        of_file("student.onnx", "student", "other/left", ("--size", "full")),
        of_file("student.xml", "student", "other/left", ("--size", "full")),
        of_file("student.pt2", "student", "same/left", ()),
    ],
)
def test_predict_gives_the_run_s_depths(
    name: str, kind: str, images: str, options: tuple[str, ...], made: Path, tmp_path: Path
) -> None:
    """To 1/256 m, what the PNG holds: a value on the border between two may be rounded to either."""
    for network in (kind, name):
        given = ("predict", made / network, made / images, "--output", tmp_path / network, "--device", "cpu")
        assert run(*given, *options) == 0
    assert sorted(os.listdir(tmp_path / kind)) == sorted(os.listdir(tmp_path / name))
    for image, expected in maps(tmp_path / kind).items():
        apart = np.abs(maps(tmp_path / name)[image].astype(int) - expected)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        of_file("teacher.onnx", "teacher", "trained"),
        of_file("teacher.xml", "teacher", "trained"),
        of_file("student.onnx", "student", "full"),
        of_file("student.xml", "student", "full"),
    ],
)
def test_evaluate_gives_the_run_s_metrics(name: str, kind: str, size: str, made: Path, tmp_path: Path) -> None:
    rows = []
    for network in (made / kind, made / name):
        output = ("--output", tmp_path / network.name, "--device", "cpu", "--size", size)
        assert run("evaluate", network, "--data", made / "other", *output) == 0
        rows.append(json.loads((tmp_path / network.name / f"{kind}.json").read_text()))
    assert rows[0].keys() == rows[1].keys()
    for protocol, result in rows[0].items():
        for metric, expected in result["means"].items():
            # Of a network that hardly learned, whole walls lie at one depth, and so at one threshold or rank.
            counts = metric.startswith(("a1", "a2", "a3", "d1", "ause", "aurg", "calibration"))
            unit = result["means"]["rmse"] if metric.endswith("_rmse") else 1.0  # an area below a curve of metres
            within = {"abs": 1e-3 * unit} if counts else {"rel": 2e-5}
            assert rows[1][protocol]["means"][metric] == pytest.approx(expected, **within), metric


@pytest.mark.parametrize("name", [of_file("teacher.onnx"), of_file("teacher.xml")])
def test_a_camera_reaches_the_file(name: str, made: Path) -> None:
    """Also one whose views have other principal points (Middlebury's), and of each image of a batch its own."""
    scenes = [SyntheticStereo(3, *SIZE, seed=2)[i] for i in range(3)]
    cameras = [replace(s.camera, baseline=s.camera.baseline * (1 + i), disparity_offset=1.5 * i) for i, s in
               enumerate(scenes)]  # fmt: skip
    left, right = (torch.stack([getattr(s, side) for s in scenes]) for side in ("left", "right"))
    camera = stack_cameras(cameras)
    with torch.no_grad():
        expected = Predictor.from_checkpoint(made / "teacher", "cpu").model(left, right, camera)
        found = open_exported(made / name)(left, right, camera)
    for output in ("depth", "log_scale", "disparity"):
        torch.testing.assert_close(getattr(found, output), getattr(expected, output), rtol=1e-4, atol=1e-3)
    depths = [round(float(depth.median()), 3) for depth in found.depth]
    assert len(set(depths)) == 3


@pytest.mark.parametrize("name", [of_file("student.onnx"), of_file("student.xml")])
def test_images_of_several_sizes_and_batches_pass_a_file_for_any(name: str, made: Path) -> None:
    network, camera = Predictor.from_checkpoint(made / "student", "cpu").model, SyntheticStereo(1, *SIZE)[0].camera
    file = open_exported(made / name)
    for count, height, width in ((1, 33, 70), (2, 64, 96), (1, 101, 45)):
        image = torch.rand(count, 3, height, width)
        with torch.no_grad():
            expected, found = (one(image, stack_cameras([camera] * count)) for one in (network, file))
        torch.testing.assert_close(found.depth, expected.depth, rtol=1e-4, atol=0.0)
        torch.testing.assert_close(found.log_scale, expected.log_scale, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("name", [of_file("light.onnx"), of_file("light.xml")])
def test_half_precision_is_near_and_in_half_the_bytes(name: str, made: Path) -> None:
    image = SyntheticStereo(1, *SIZE, seed=3)[0].left[None]
    with torch.no_grad():
        expected, found = (Predictor.from_checkpoint(made / one, "cpu").model(image, None) for one in
                           ("light", name))  # fmt: skip
    apart = (found.depth / expected.depth - 1).abs()
    assert 0 < apart.mean() < 1e-2
    assert found.depth.dtype == torch.float32
    weights = sum(p.numel() for p in Predictor.from_checkpoint(made / "light", "cpu").model.parameters())
    assert (made / name).with_suffix(".bin" if name.endswith(".xml") else ".onnx").stat().st_size < 3 * weights


@needs_onnx
def test_what_a_file_says_can_be_read_without_us(made: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(made / "teacher.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["left", "right", "focal", "baseline", "disparity_offset"]
    assert [one.name for one in session.get_outputs()] == ["depth", "log_scale", "disparity"]
    said = session.get_modelmeta().custom_metadata_map
    assert "metres" in said["output.depth"]
    assert "natural log of the Laplace scale b of ln depth" in said["output.log_scale"]
    assert said["input.left"].startswith("1×3×32×64 float32")
    record = json.loads(said[KEY])
    assert record["size"] == list(SIZE)
    assert record["checkpoint"] == "teacher/checkpoints/step-00000001"


@pytest.mark.parametrize(
    "name",
    [of_file(f"{name}.{suffix}") for name in ("teacher", "student", "light") for suffix in ("onnx", "xml")]
    + [of_file("student.pt2")],
)
def test_a_file_tells_no_folder_of_the_machine_that_wrote_it(name: str, made: Path) -> None:
    """torch and torch.onnx keep with every node the lines of code that it came from."""
    content = (made / name).read_bytes()
    assert b"adu_depth" in content, "its own name, so text stands in the file as it is"
    for folder in (made, Path(command.__file__).parents[2]):
        assert os.fsencode(folder) not in content, folder


def test_a_file_that_is_not_the_network_is_not_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = command.tensor_graph

    def planted(network: torch.nn.Module, note: Note) -> TensorGraph:
        """As if the converter had lost a hundredth of one layer's weights."""
        changed = copy.deepcopy(network)
        with torch.no_grad():
            changed.get_parameter("head.predict.bias").mul_(1.01)
        return honest(changed, note)

    monkeypatch.setattr(command, "tensor_graph", planted)
    arguments = ("export", made / "student", "--format", "torch-export", "--output", tmp_path / "out" / "a.pt2")
    assert run(*arguments) == 2
    assert (
        "the file's depth is not PyTorch's: expected a largest difference of at most 0.0001" in capsys.readouterr().err
    )
    assert not list(tmp_path.rglob("*.pt2*")), "nothing under its name, nor under a temporary one"


@pytest.mark.parametrize("name", ["student.pt2", "teacher.onnx"])
def test_a_file_predicts_a_clip_as_its_network_does(name: str, made: Path, tmp_path: Path) -> None:
    options = ("--as-video", "--video.frames", "npz", "--device", "cpu")
    run_name = name.partition(".")[0]
    clip = made / "same" / ("left" if run_name == "student" else "")
    for network, output in ((name, "file"), (run_name, "run")):
        assert run("predict", made / network, clip, *options, "--output", tmp_path / output) == 0
    files = sorted(path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*.npz"))
    assert files
    for file in files:
        with np.load(tmp_path / "run" / file) as one, np.load(tmp_path / "file" / file) as other:
            np.testing.assert_allclose(one["depth"], other["depth"], rtol=6e-4)
            np.testing.assert_allclose(one["log_scale"], other["log_scale"], atol=2e-3)


REFUSED = {
    "a size below a cell": (("export", "student", "--size", 16, 64), "at least one cell of 32×32"),
    "a side too long": (("export", "student", "--size", 32, 20_000), "sides of at most 16,384 and 4,194,304 pixels"),
    "a fixed size and any": (("export", "student", "--size", 32, 64, "--dynamic"), "--dynamic is any size"),
    "a teacher for any": (("export", "teacher", "--dynamic"), "a stereo teacher's file is for one size"),
    "another suffix": (("export", "student", "--output", "OUT/a.pt"), "expected a name ending in .onnx, got "),
    "a file again": (("export", "student.pt2"), "expected a run or a checkpoint, got an exported file"),
    "no run": (("export", "nothing"), "nothing does not exist"),
    "single images for a teacher": (
        ("export", "teacher", "--format", "torch-export", "--images", "same/left/000000.png"),
        "a stereo teacher needs pairs",
    ),
    "no such file": (("predict", "nothing.onnx", "same/left"), "nothing.onnx: cannot be read: No such file"),
    "a damaged file": (("predict", "damaged.onnx", "same/left"), "damaged.onnx: expected an ONNX file"),
    "a damaged archive": (("predict", "damaged.pt2", "same/left"), "damaged.pt2: expected a torch.export archive"),
    "another's ONNX": (("predict", "foreign.onnx", "same/left"), "expected a file that `adu-depth export` wrote"),
    "single images for its file": (("predict", "teacher.onnx", "same/left"), "a stereo teacher needs pairs"),
    "no camera": (("predict", "student.onnx", "bare"), "no calibration for"),
    "a GPU": (("predict", "student.onnx", "same/left", "--device", "cuda"), "runs on the CPU here"),
    "another size": (
        ("predict", "teacher.onnx", "other", "--size", "full"),
        "expected images of 32×64, which the file",
    ),
    "no bytes": (("predict", "student.pt2", "other/left"), "it takes images of 8 bits"),
    "too small": (("predict", "student.onnx", "small", "--fx", 50, "--size", "full"), "larger than one cell of 32×32"),
    "evaluate": (("evaluate", "damaged.onnx", "--pairs", 1), "damaged.onnx: expected an ONNX file"),
    "as a teacher": (("distill", "--teacher", "teacher.onnx", "--run", "OUT/run"), "holds no checkpoint"),
    "a missing model": (("predict", "nothing.xml", "same/left"), "nothing.xml: cannot be read: No such file"),
    "a damaged model": (
        ("predict", "damaged.xml", "same/left"),
        "damaged.xml: expected a file that `adu-depth export`",
    ),
    "another's XML": (("predict", "foreign.xml", "same/left"), "expected a file that `adu-depth export` wrote"),
}


def library_of(what: str) -> str:
    """The suffix that a case of REFUSED needs a library for."""
    named = [Path(str(a)).suffix for a in REFUSED[what][0] if Path(str(a)).suffix in (".onnx", ".xml", ".pt2")]
    if named:
        return named[0]
    return ".pt2" if "torch-export" in REFUSED[what][0] or REFUSED[what][0][0] != "export" else ".onnx"


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_says_what_is_wrong(
    what: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not HAS[library_of(what)]:
        pytest.skip(f"no library for {library_of(what)}")
    arguments, expected = REFUSED[what]
    for suffix in ("onnx", "xml", "pt2"):
        if HAS[f".{suffix}"]:
            (made / f"damaged.{suffix}").write_bytes((made / f"student.{suffix}").read_bytes()[:5000])
    if HAS[".onnx"]:
        (made / "foreign.onnx").write_bytes(_foreign())
    (made / "foreign.xml").write_text('<?xml version="1.0"?>\n<boost_serialization><tracklets/></boost_serialization>')
    for folder, size in (("bare", SIZE), ("small", (20, 64))):
        (made / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(made / folder / "0.png"), np.zeros((*size, 3), np.uint8))
    given = [str(made / a) if (made / str(a)).exists() or "nothing" in str(a) else str(a) for a in arguments]
    output = [] if {"--output", "--run"} & set(given) else ["--output", "OUT/a.onnx" if given[0] == "export" else "OUT"]
    if "torch-export" in given:
        output = ["--output", "OUT/a.pt2"]
    code = run(*(a.replace("OUT", str(tmp_path / "out")) for a in [*given, *output]))
    said = capsys.readouterr()
    assert expected in said.err
    assert "Traceback" not in said.err
    assert code == (1 if what in ("too small", "another size", "no bytes", "no camera") else 2), "a folder goes on"
    assert not list(tmp_path.rglob("*.onnx")) + list(tmp_path.rglob("*_depth.png")) + list(tmp_path.rglob("*.tmp"))


def _foreign() -> bytes:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@needs_onnx
@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_before_any_work(
    module: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert run("export", made / "student", "--output", made / "missing" / "a.onnx") == 2
    said = capsys.readouterr().err
    assert f"expected {module} to be installed" in said
    assert "pip install 'adu-depth[onnx]'" in said
    assert not (made / "missing").exists()
    if module == "onnxruntime":
        assert run("predict", made / "student.onnx", made / "same" / "left") == 2
        assert "expected onnxruntime to be installed" in capsys.readouterr().err


@needs_onnx
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": [16, 64]}, r"size\[0\]: expected a whole number from 32"),
        ({"format": 2}, "format: expected 1, got 2"),
        ({"kind": "student"}, "as its record says"),
        ({"more": 1}, "more: expected no such name"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    change: dict[str, object], expected: str, made: Path, tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(made / "teacher.onnx")
    record = next(one for one in model.metadata_props if one.key == KEY)
    record.value = json.dumps(json.loads(record.value) | change)
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(InputError, match=expected):
        open_exported(tmp_path / "changed.onnx")


def test_on_real_pairs(made: Path, real_stereo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("export", made / "student", "--format", "torch-export", "--output", tmp_path / "a.pt2", "--count", 2)
    assert run(*arguments, "--images", real_stereo / "kitti2015", real_stereo / "eth3d") == 0
    assert "3 images at 32×64" in capsys.readouterr().out


@needs_onnx
def test_a_network_larger_than_a_picture_may_be_is_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written, then refused: the limit for any file is for what is decoded."""
    monkeypatch.setenv("ADU_DEPTH_MAX_MB", "1")
    assert (made / "light.onnx").stat().st_size > 2e6
    open_exported(made / "light.onnx")


NOTE = Note("student", "fp32", (64, 64), 1, False, True, True, 0.1, 100.0, None, (64, 64), "resize", 0, "run", "here")
FOREIGN = {
    "torch.export.export": lambda program, path: capture(StudentGraph(nn.Conv2d(3, 1, 3), NOTE), NOTE),
    "torch.export.load": lambda program, path: torch_export_file.open_file(path / "a.pt2"),
    "torch.onnx.export": lambda program, path: onnx_file.write(program, NOTE, path / "a.onnx"),
    "onnxruntime.InferenceSession": lambda program, path: onnx_file.open_file(path / "a.pt2"),
}
"""Calls of other libraries, and what of ours makes them."""


@pytest.mark.parametrize("call", [pytest.param(c, marks=needs_onnx if "onnx" in c else ()) for c in FOREIGN])
def test_a_signal_of_which_a_library_makes_another_error_stops_what_called_it(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told as a network that cannot be converted, or a file that is none. OpenVINO does so by itself
    (test_openvino.py)."""
    program = torch.export.export(nn.Conv2d(3, 4, 3).eval(), (torch.rand(1, 3, 8, 8),))
    torch_export_file.write(program, NOTE, tmp_path / "a.pt2")

    def asked_to_stop(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Stopped:
            raise RuntimeError("in this library's own words") from None

    monkeypatch.setattr(call, asked_to_stop)
    with end_on_signals() as signals:
        signals.started()
        with pytest.raises(Stopped):
            FOREIGN[call](program, tmp_path)
    assert os.listdir(tmp_path) == ["a.pt2"]


@torch.no_grad()
def test_a_teacher_s_volume_is_normalised_to_fp32_s_last_digits() -> None:
    """Where it is channels-last, torch is a hundred times as far off on a CPU: files were refused for its sake."""
    torch.manual_seed(0)
    network = Aggregation(8, 8, hourglasses=1).eval()
    volume, prior = torch.rand(1, 8, 48, 48, 96) + 1, torch.zeros(1, 48, 48, 96)
    exact = copy.deepcopy(network).double()(volume.double(), prior.double())[1]
    command.use_references(network)
    apart = (network(volume, prior)[1] - exact).abs().max() / exact.abs().mean()
    assert apart < 5e-5


@needs_onnx
@torch.no_grad()
def test_onnx_runtime_normalises_a_volume_to_fp32_s_last_digits(tmp_path: Path) -> None:
    """Its own sums are off by 1e-3 of a value, so that a teacher's file was refused."""
    from onnxruntime import InferenceSession

    class Norms(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            weight, bias = torch.linspace(0.5, 1.5, 8), torch.linspace(-1.0, 1.0, 8)
            with torch.autocast("cpu", enabled=False):  # a graph within the graph, as in a teacher's
                return torch.group_norm(volume, 2, weight.to(volume), bias.to(volume), 1e-3)

    torch.manual_seed(0)
    volume = torch.relu(torch.randn(1, 8, 48, 48, 96) + 1)
    exact = Norms()(volume.double())
    with quiet():
        program = onnx_file.with_staged_norms(torch.export.export(Norms(), (volume,), strict=False))
        written = torch.onnx.export(program, dynamo=True, opset_version=onnx_file.OPSET, verbose=False)
    assert written is not None
    written.save(tmp_path / "a.onnx")
    session = InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: volume.numpy()})
    assert (torch.from_numpy(found) - exact).abs().max() / exact.abs().mean() < 2e-5
    flat = torch.export.export(Norms(), (volume[:, :, 0],), strict=False)
    assert onnx_file.with_staged_norms(flat) is flat, "a map's norm is left to it"
