"""What people hand over: images of every kind, cameras, batches; and what is said where metres cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from adu_depth.data import SyntheticStereo
from adu_depth.data.image_files import read_image
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.hub import AduDepthConfig, AduDepthImageProcessor, AduDepthModel, AduDepthPipeline
from adu_depth.inference import Predictor, write_samples
from adu_depth.inference.image_files import encode_jpeg
from tests.hub.runs import RUNS, make_run

HEIGHT, WIDTH = 72, 120


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_samples(SyntheticStereo(2, HEIGHT, WIDTH, seed=4), folder, 2)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AduDepthModel]:
    folder = tmp_path_factory.mktemp("runs")
    names = ("student", "student by focal length", "student of windows", "stereo teacher")
    return {name: AduDepthModel.from_pretrained(make_run(folder / name, RUNS[name])) for name in names}


def pipe_of(model: AduDepthModel, **settings: Any) -> AduDepthPipeline:
    processor = AduDepthImageProcessor.of(model.config)
    return pipeline(  # type: ignore[no-any-return,call-overload]
        "depth-estimation",
        model=model,
        image_processor=processor,
        pipeline_class=AduDepthPipeline,
        device="cpu",
        **settings,
    )


def pixels(pairs: Path) -> np.ndarray:
    return np.array(Image.open(pairs / "left" / "000000.png"))


@pytest.mark.parametrize(
    "kind", ["path", "text", "array", "uint16", "tensor", "batch", "grey", "alpha", "palette", "16 bits"]
)
def test_an_image_may_be_of_any_kind(kind: str, pairs: Path, tmp_path: Path) -> None:
    file = pairs / "left" / "000000.png"
    image = Image.open(file)
    grey = image.convert("L")
    wide = Image.fromarray(np.array(grey).astype(np.uint16) * 257)
    few = image.quantize(16)
    given: dict[str, Any] = {
        "path": file,
        "text": str(file),
        "array": np.array(image),
        "uint16": np.array(image).astype(np.uint16) * 257,
        "tensor": read_image(file),
        "batch": read_image(file)[None],
        "grey": grey,
        "alpha": image.convert("RGBA"),
        "palette": few,
        "16 bits": wide,
    }
    same: dict[str, Any] = {"grey": grey.convert("RGB"), "palette": few.convert("RGB"), "16 bits": grey.convert("RGB")}
    processor = AduDepthImageProcessor({"height": 32, "width": 64})
    found = processor(given[kind])["pixel_values"]
    assert found.shape == (1, 3, 32, 64)
    wanted = processor(same.get(kind, image))["pixel_values"]
    assert torch.allclose(found, wanted, atol=1e-6)
    if "16" not in kind:
        assert torch.equal(found, wanted)


def test_a_photo_is_turned_upright_as_predict_does_and_a_pair_is_not(pairs: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(pairs / "left" / "000000.png").save(tmp_path / "turned.png", exif=exif)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert AduDepthImageProcessor()(given)["pixel_values"].shape == (1, 3, WIDTH, HEIGHT)
        pair = AduDepthImageProcessor(stereo=True)(given, given, fx=70.0, baseline=0.5)
        assert pair["pixel_values"].shape == pair["right_pixel_values"].shape == (1, 3, HEIGHT, WIDTH)


def test_a_jpeg_s_path_gives_what_predict_reads(models: dict[str, AduDepthModel], pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encode_jpeg(pixels(pairs), 60))
    found = pipe_of(models["student"])(str(tmp_path / "photo.jpg"))["predicted_depth"]
    predictor = Predictor(models["student"].network, size=(64, 96))
    assert torch.equal(found, predictor.predict_image(read_image(tmp_path / "photo.jpg")).depth[0, 0])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("/nowhere/at all.png", "image: expected an image, got what cannot be read as one"),
        (Path("/nowhere/at all.png"), "cannot be read: No such file"),
        (np.zeros((4, 5), np.uint8), "image: expected an H×W×3 array of uint8 or uint16"),
        (torch.full((3, 4, 5), 255.0), "image: expected values in .0, 1., got 255"),
        (
            Image.fromarray(np.zeros((4, 5), np.float32)),
            "image: expected 8 or 16 bits a pixel, got a picture of floats",
        ),
        (7, "image: expected a file, a URL, a PIL picture, an H×W×3 array or a 3×H×W tensor, got int"),
        (None, "image: expected a file, a URL"),
        ({"picture": 1}, "picture: expected image, right, fx, baseline, disparity_offset"),
    ],
)
def test_what_is_no_image_is_refused(models: dict[str, AduDepthModel], image: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pipe_of(models["student"])([image])


def test_images_that_would_have_several_sizes_are_refused_together(pairs: Path) -> None:
    image = pixels(pairs)
    both = [image, image[:40]]
    assert AduDepthImageProcessor({"height": 32, "width": 64})(both)["pixel_values"].shape == (2, 3, 32, 64)
    with pytest.raises(
        InputError, match="images: expected one size in a call, got 72×120, 40×120; give them one by one"
    ):
        AduDepthImageProcessor({"shortest_edge": 32})(both)
    with pytest.raises(InputError, match="images: expected an image, got an empty list"):
        AduDepthImageProcessor()([])


@pytest.mark.parametrize(
    ("size", "made"), [({"shortest_edge": 240}, "240×72727"), ({"height": 4096, "width": 4096}, "4096×4096")]
)
def test_nothing_is_enlarged_to_more_pixels_than_a_network_is_trained_at(size: dict[str, int], made: str) -> None:
    told = f"size: an image of 33×10000 would be {made}, expected at most 4,194,304 pixels: a smaller one"
    with pytest.raises(InputError, match=told):
        AduDepthImageProcessor(size)(torch.rand(3, 33, 10_000))


@pytest.mark.parametrize(
    "size", [{"height": 3}, {"height": 0, "width": 4}, {"shortest_edge": 2.5}, {"longest_edge": 5}]
)
def test_a_size_that_is_none_is_refused(size: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="size: expected height and width, or shortest_edge, in pixels"):
        AduDepthImageProcessor(size)


def test_the_size_may_be_the_image_s_own_as_in_predict_size_full(models: dict[str, AduDepthModel], pairs: Path) -> None:
    model, image = models["student"], read_image(pairs / "left" / "000000.png")
    processor = AduDepthImageProcessor.of(model.config)
    for inputs in (processor(image, do_resize=False), AduDepthImageProcessor()(image)):
        with torch.no_grad():
            found = processor.post_process_depth_estimation(model(**inputs), [(HEIGHT, WIDTH)])
        wanted = Predictor(model.network, size=None).predict_image(image)
        assert torch.equal(found[0]["predicted_depth"], wanted.depth[0, 0])
    inner = processor(image, size={"shortest_edge": 36})["pixel_values"]
    assert inner.shape == (1, 3, 36, 60)


def test_metres_follow_the_focal_length_and_each_image_has_its_own(
    models: dict[str, AduDepthModel], pairs: Path
) -> None:
    model, image = models["student by focal length"], pixels(pairs)
    pipe = pipe_of(model)
    near, far = (pipe(Image.fromarray(image), fx=fx)["predicted_depth"] for fx in (60.0, 66.0))
    assert torch.allclose(far, 1.1 * near, rtol=1e-5)
    processor = AduDepthImageProcessor.of(model.config)
    inputs = processor([image, image], fx=[60.0, 66.0])
    assert inputs["fx"] == pytest.approx([60 * 96 / 120, 66 * 96 / 120])
    with torch.no_grad():
        depths = processor.post_process_depth_estimation(model(**inputs), [(HEIGHT, WIDTH)] * 2)
    for one, depth in zip((near, far), depths, strict=True):
        assert torch.allclose(one, depth["predicted_depth"], rtol=1e-4)
    assert torch.equal(pipe_of(model, fx=66.0)(Image.fromarray(image))["predicted_depth"], far)


def test_a_list_and_a_batch_of_pairs_give_what_each_gives_alone(models: dict[str, AduDepthModel], pairs: Path) -> None:
    pipe = pipe_of(models["stereo teacher"])
    items = [
        {"image": str(pairs / "left" / f"{name}.png"), "right": pairs / "right" / f"{name}.png", "fx": fx}
        for name, fx in (("000000", 70.0), ("000001", 80.0))
    ]
    alone = [pipe(item, baseline=0.5) for item in items]
    for batch_size in (1, 2):
        together = pipe(items, baseline=0.5, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert one["predicted_depth"].shape == other["predicted_depth"].shape == (HEIGHT, WIDTH)
            for name in ("predicted_depth", "log_scale", "disparity"):
                assert torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5), name
    product = alone[0]["predicted_depth"] * alone[0]["disparity"]
    inside = (alone[0]["predicted_depth"] > 0.6) & (alone[0]["predicted_depth"] < 79)
    assert inside.any()
    assert product[inside].median() == pytest.approx(70.0 * 0.5, rel=0.05)


def test_a_camera_toml_beside_the_image_is_taken_as_predict_takes_it(
    models: dict[str, AduDepthModel], pairs: Path
) -> None:
    left, right = pairs / "left" / "000000.png", pairs / "right" / "000000.png"
    camera = SyntheticStereo(1, HEIGHT, WIDTH, seed=4)[0].camera
    model = models["student by focal length"]
    found = pipe_of(model)(left)["predicted_depth"]
    wanted = Predictor(model.network, size=(64, 96)).predict_image(read_image(left), camera=camera)
    assert torch.equal(found, wanted.depth[0, 0])
    teacher = models["stereo teacher"]
    pair = pipe_of(teacher)(left, right=right)["predicted_depth"]
    wanted = Predictor(teacher.network, size=(64, 96)).predict_image(read_image(left), read_image(right), camera)
    assert torch.equal(pair, wanted.depth[0, 0])
    other = pipe_of(model)(left, fx=2 * float(camera.fx))["predicted_depth"]
    assert other.median() > 1.5 * found.median(), "what is given goes before the file"


def test_without_a_camera_metres_are_refused_and_the_message_says_what_to_give(
    models: dict[str, AduDepthModel], pairs: Path, tmp_path: Path
) -> None:
    image, bare = Image.fromarray(pixels(pairs)), tmp_path / "bare.png"
    image.save(bare)
    student, teacher = models["student by focal length"], models["stereo teacher"]
    focal = r"camera: this student's metres need fx, the focal length in pixels of the image, got none: give fx=…"
    pair = (
        "camera: a stereo teacher's metres need fx, .* and baseline, .*; got no fx and baseline: give fx=…, baseline=…"
    )
    with pytest.raises(InputError, match=focal):
        pipe_of(student)(image)
    with pytest.raises(InputError, match=r"no calibration for .*bare\.png: give --fx"):
        pipe_of(student)(bare)
    with pytest.raises(InputError, match=focal):
        student(torch.rand(1, 3, 64, 96))
    with pytest.raises(InputError, match=pair):
        pipe_of(teacher)(image, right=image)
    with pytest.raises(InputError, match="got no baseline: give"):
        pipe_of(teacher)(image, right=image, fx=70.0)
    with pytest.raises(InputError, match="right: a stereo teacher needs the right image too"):
        pipe_of(teacher)(image, fx=70.0, baseline=0.5)
    with pytest.raises(InputError, match="right_pixel_values: a stereo teacher needs the right image"):
        teacher(torch.rand(1, 3, 64, 96), fx=70.0, baseline=0.5)
    with pytest.raises(InputError, match="right: this network looks at one image, got a second one"):
        pipe_of(models["student"])(image, right=image)
    assert pipe_of(models["student"])(image)["predicted_depth"].shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fx": -1.0}, "fx of the camera must be positive"),
        ({"fx": float("nan")}, "fx of the camera must be finite"),
        ({"fx": "long"}, "fx: expected a number, got 'long'"),
        ({"fx": "70"}, "fx: expected a number, got '70'"),
        ({"fx": True}, "fx: expected a number, got True"),
        ({"fx": [None]}, r"fx: expected a number, got \[None\]"),
        ({"baseline": {"metres": 0.5}}, "baseline: expected a number, got {'metres': 0.5}"),
        ({"fx": [1.0, 2.0, 3.0]}, "fx: expected one number, or 1, one for each image, got 3"),
        ({"baseline": 0.0}, "baseline: expected a positive number of metres, got 0"),
        ({"focal": 3.0}, "focal: no such parameter; known are baseline, disparity_offset, fx, right, timeout"),
        ({"right": "small"}, "right: expected images of the left ones' sizes, 72×120, got 8×8"),
    ],
)
def test_numbers_that_are_no_camera_s_are_refused(
    models: dict[str, AduDepthModel], pairs: Path, given: dict[str, Any], said: str
) -> None:
    image = Image.fromarray(pixels(pairs))
    if given.get("right") == "small":
        given = {"right": image.resize((8, 8))}
    with pytest.raises(InputError, match=said):
        pipe_of(models["stereo teacher"])(image, **{"right": image, "fx": 70.0, "baseline": 0.5, **given})


def test_what_an_item_leaves_open_is_the_call_s(models: dict[str, AduDepthModel], pairs: Path) -> None:
    """None in a row of a table, say: it is as if the item had no such name."""
    pipe, image = pipe_of(models["student by focal length"]), Image.fromarray(pixels(pairs))
    given = pipe(image, fx=60.0)["predicted_depth"]
    (found,) = pipe([{"image": image, "fx": None, "right": None}], fx=60.0)
    assert torch.equal(found["predicted_depth"], given)
    with pytest.raises(InputError, match=r"this student's metres need fx, .* got none: give fx="):
        pipe([{"image": image, "fx": None}])
    with pytest.raises(InputError, match="fx: expected a number, got 'long'"):
        pipe([{"image": image, "fx": "long"}], fx=60.0)


@pytest.mark.parametrize("fx", ["long", [None, 70.0], {}, [[70.0], [70.0, 70.0]]])
def test_the_model_refuses_what_is_no_number(models: dict[str, AduDepthModel], fx: Any) -> None:
    with pytest.raises(InputError, match=r"^fx: expected a number, or one for each image, got "):
        models["student by focal length"](torch.rand(2, 3, 64, 96), fx=fx)


def test_the_model_takes_numbers_and_tensors_and_gives_features_where_asked(models: dict[str, AduDepthModel]) -> None:
    model, views = models["stereo teacher"], torch.rand(2, 3, 64, 96)
    camera = Camera(*(torch.full((2,), value) for value in (70.0, 70.0, 0.0, 0.0, 0.5, 1.5)))
    with torch.no_grad():
        wanted = model.network(views, views.flip(-1), camera)
        for fx in (70.0, [70.0, 70.0], torch.tensor([70.0, 70.0])):
            found = model(views, views.flip(-1), fx, 0.5, torch.tensor(1.5), output_hidden_states=True)
            assert torch.equal(found.predicted_depth, wanted.depth[:, 0])
            assert torch.equal(found.disparity, wanted.disparity[:, 0])
            assert [f.shape for f in found.hidden_states] == [f.shape for f in wanted.features]
        depth, *_ = model(views, views.flip(-1), 70.0, 0.5, 1.5, return_dict=False)
    assert torch.equal(depth, wanted.depth[:, 0])


def test_a_map_that_is_not_finite_is_refused() -> None:
    processor = AduDepthImageProcessor()
    depth = torch.ones(1, 8, 8)
    depth[0, 2, 2] = torch.nan
    with pytest.raises(InputError, match="the image: the predicted depth is NaN at"):
        processor.post_process_depth_estimation({"predicted_depth": depth}, [(16, 16)])
    with pytest.raises(InputError, match="target_sizes: expected 1, one for each image, got 2"):
        processor.post_process_depth_estimation({"predicted_depth": depth}, [(16, 16)] * 2)


def test_a_configuration_that_is_no_network_s_is_refused() -> None:
    with pytest.raises(InputError, match=r"the configuration: model\.head_channels: expected a whole number"):
        AduDepthModel(AduDepthConfig(model={"head_channels": "many"}))
    with pytest.raises(InputError, match="kind must be 'teacher' or 'student', got 'both'"):
        AduDepthModel(AduDepthConfig(kind="both"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"data\.size"):
        AduDepthModel(AduDepthConfig(data={"size": [3]}))
