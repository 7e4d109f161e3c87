"""Windows of frames at sizes drawn anew: geometry exact, draws by (seed, step, slot), what cannot follow refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.checkpoint import config_dict, load_model
from adu_depth.cli import main, parse
from adu_depth.data import StereoSample, SyntheticStereo, open_dataset
from adu_depth.data.augmentation import draw_generator
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.transforms import draw_scaled_size, draw_window, resize_sample
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.files import remove_folder
from adu_depth.geometry import Camera
from adu_depth.inference import write_samples
from adu_depth.schema import check
from adu_depth.tensor_files import read_tensors
from adu_depth.training.batches import CROP_DRAWS, TrainingBatch, batches
from adu_depth.training.cache_command import CacheTeacherConfig
from adu_depth.training.config import TeacherTrainingConfig
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.sources import open_samples
from tests.data.pack_files import pack, write_kitti
from tests.training.test_batches import Outputs
from tests.training.tiny import LOOP, SIZE, STUDENT, tiny_student, tiny_teacher

CPU = torch.device("cpu")
ONE = ProcessGroup()
SCALES = (0.6, 1.8)
DATA = DataConfig(size=SIZE, fit="crop", crop_scale=SCALES)
HEIGHT, WIDTH = 96, 192


class Ramps:
    """A wall at 1.5 m before a rig: every view says in its colours which column and row it shows."""

    camera = Camera(fx=60.0, fy=50.0, cx=90.0, cy=40.0, baseline=0.2, disparity_offset=2.0)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> StereoSample:
        columns = ((torch.arange(WIDTH) + 0.5) / WIDTH).expand(1, HEIGHT, WIDTH)
        rows = ((torch.arange(HEIGHT) + 0.5) / HEIGHT)[:, None].expand(1, HEIGHT, WIDTH)
        view = torch.cat([columns, rows, torch.full_like(rows, 0.5)])
        known = torch.ones(1, HEIGHT, WIDTH)
        return StereoSample(
            view, view.clone(), 1.5 * known, 6.0 * known, known.bool(), self.camera, name=f"ramp {index}"
        )


def stream(samples: object, data: DataConfig, start: int = 0, **changes: object) -> list[TrainingBatch]:
    return list(batches(samples, data, replace(LOOP, **changes), start, ONE, CPU))  # type: ignore[arg-type]


def assert_same(ones: list[TrainingBatch], others: list[TrainingBatch]) -> None:
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        assert one.sample.name == other.sample.name
        first, second = (batch.sample._tensors() | vars(batch.sample.camera) for batch in (one, other))
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_places(found: torch.Tensor, length: int) -> None:
    """Each where it is, to the ripple of an antialiasing filter's few weights, and all of them together exactly."""
    error = found - torch.arange(8, length - 8)
    assert error.abs().max() < 0.1
    assert error.mean().abs() < 0.02


def test_views_maps_and_camera_follow_the_exact_ratio_of_each_axis() -> None:
    """Columns and rows that the colours say, are where the camera says that they are."""
    ratios = set()
    for batch in stream(Ramps(), DATA, steps=20):
        sample = batch.sample
        for i in range(len(sample.name)):
            own, camera = Ramps.camera, Camera(*(float(value[i]) for value in vars(sample.camera).values()))
            scale_x, scale_y = camera.fx / own.fx, camera.fy / own.fy
            assert scale_x * WIDTH == pytest.approx(round(scale_x * WIDTH), abs=1e-3), "whole pixels"
            assert scale_y * HEIGHT == pytest.approx(round(scale_y * HEIGHT), abs=1e-3)
            ratios.add((round(scale_x, 4), round(scale_y, 4)))
            assert camera.disparity_offset == pytest.approx(2.0 * scale_x)
            assert torch.all(sample.depth[i] == 1.5)
            torch.testing.assert_close(sample.disparity[i], torch.full((1, *SIZE), 6.0 * scale_x))
            assert camera.fx * camera.baseline / (6.0 * scale_x + camera.disparity_offset) == pytest.approx(1.5)
            # The inner ones alone: at an image's own border the filter's weights are cut off.
            seen = sample.left[i, 0, 16, 8:-8] * WIDTH - 0.5  # columns of the frame as it was
            assert_places((seen - own.cx) / own.fx * camera.fx + camera.cx, SIZE[1])
            seen = sample.left[i, 1, 8:-8, 16] * HEIGHT - 0.5
            assert_places((seen - own.cy) / own.fy * camera.fy + camera.cy, SIZE[0])
            assert torch.equal(sample.left[i], sample.require_right("")[i])
    assert len(ratios) > 20
    assert min(x for x, _ in ratios) < 0.8
    assert max(x for x, _ in ratios) > 1.4
    assert any(x != y for x, y in ratios), "rounded apart"


def test_factors_are_log_uniform_and_raised_where_the_window_would_not_fit() -> None:
    def factors(scale: tuple[float, float], size: tuple[int, int] = (1000, 2000)) -> list[float]:
        drawn = [draw_scaled_size((1000, 2000), size, scale, draw_generator(0, step)) for step in range(400)]
        assert all(width == pytest.approx(2 * height, abs=1) for height, width in drawn)
        return [height / 1000 for height, _ in drawn]

    free = factors((0.25, 4.0), size=(32, 64))
    assert min(free) >= 0.25
    assert max(free) <= 4
    assert sum(math.log2(factor) < 0 for factor in free) == pytest.approx(200, abs=40)
    assert sum(-1 < math.log2(factor) < 0 for factor in free) == pytest.approx(100, abs=40)
    raised = factors((0.25, 4.0), size=(500, 64))
    assert [max(factor, 0.5) for factor in free] == pytest.approx(raised)
    assert set(factors((0.7, 0.7), size=(32, 64))) == {0.7}
    for size in ((331, 64), (32, 777), (37, 999)):  # never a row or a column too few
        height, width = draw_scaled_size((1000, 2000), size, (0.05, 0.5), draw_generator(0, 1))
        assert height >= size[0]
        assert width >= size[1]
    with pytest.raises(InputError, match=r"a crop of 600×64 does not fit an image of 1000×2000 at 0\.5 of its size"):
        draw_scaled_size((1000, 2000), (600, 64), (0.25, 0.5), draw_generator(0, 0))


def test_a_range_of_one_is_what_there_was_before() -> None:
    """The same windows of the same bits, by the draws of before, which these lines repeat."""
    samples, data = Ramps(), replace(DATA, crop_scale=(1.0, 1.0))
    for step, batch in enumerate(stream(samples, data)):
        for slot in range(2):
            place = draw_window((HEIGHT, WIDTH), SIZE, draw_generator(LOOP.seed, step, rank=CROP_DRAWS + slot))
            expected = samples[int(batch.sample.name[slot].split()[1])].crop(*place, *SIZE)
            assert torch.equal(batch.sample.left[slot], expected.left)
            assert torch.equal(batch.sample.disparity[slot], expected.disparity)
            assert float(batch.sample.camera.cx[slot]) == expected.camera.cx  # type: ignore[index]


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    write_samples(SyntheticStereo(4, 48, 96, seed=0), tmp_path / "rig", 4)
    return tmp_path / "rig"


def test_draws_are_by_seed_step_and_slot_whoever_reads(rig: Path) -> None:
    whole = stream(open_dataset(rig), DATA, workers=0)
    assert_same(whole[3:], stream(open_dataset(rig), DATA, start=3, workers=2))
    focal = [float(value) for batch in whole for value in batch.sample.camera.fx]  # type: ignore[union-attr]
    assert len(set(focal)) > len(focal) / 2, "of each slot its own"
    other = stream(open_dataset(rig), DATA, workers=0, seed=1)
    assert focal != [float(value) for batch in other for value in batch.sample.camera.fx]  # type: ignore[union-attr]
    expected, first = open_dataset(rig), whole[0].sample
    generator = draw_generator(LOOP.seed, 0, rank=CROP_DRAWS + 1)
    size = draw_scaled_size((48, 96), SIZE, SCALES, generator)
    sample = resize_sample(expected[expected.names.index(first.name[1])], *size)
    assert torch.equal(sample.crop(*draw_window(size, SIZE, generator), *SIZE).left, first.left[1])


def test_a_pack_gives_what_the_files_give(tmp_path: Path) -> None:
    """Frames of several sizes, occlusions, 8-bit levels that are resized as floats."""
    kitti = write_kitti(tmp_path / "raw")
    pack(kitti, tmp_path / "pack")
    data = replace(DATA, crop_scale=(0.5, 2.0))
    of_files = stream(open_dataset(kitti), data, batch_size=3)
    assert all(batch.sample.left.dtype == torch.float32 for batch in of_files)
    assert_same(of_files, stream(open_dataset(tmp_path / "pack"), data, batch_size=3, workers=1))


def test_proxies_are_resized_with_their_frames(tmp_path: Path) -> None:
    """They are read at the frame's own size; resized, disparity, depth and camera still agree."""
    write_samples(SyntheticStereo(2, 64, 192, seed=5), tmp_path / "pairs", 2)
    for role in ("depth", "sparse_depth", "disparity", "occluded"):
        (tmp_path / "pairs" / role).rename(tmp_path / role)
    with pytest.raises(SystemExit):
        main(["proxies", str(tmp_path / "pairs"), "--output", str(tmp_path / "proxies"), "--max-disparity", "64"])
    data = replace(DATA, root=str(tmp_path / "pairs"), proxies=str(tmp_path / "proxies"))
    samples = open_samples(data, CPU)
    native = {samples[i].name: samples[i] for i in range(2)}
    for batch in stream(samples, data):
        sample = batch.sample
        for i, name in enumerate(sample.name):
            ratio = float(sample.camera.fx[i]) / native[name].camera.fx  # type: ignore[index]
            valid = sample.valid[i]
            assert valid.any()
            own = set(native[name].disparity[native[name].valid].tolist())
            back = sample.disparity[i][valid] / ratio
            assert all(min(abs(value - one) for one in own) < 1e-3 for value in back.unique().tolist())
            product = sample.depth[i][valid] * sample.disparity[i][valid]
            focal_baseline = float(sample.camera.fx[i]) * float(sample.camera.baseline[i])  # type: ignore[index]
            torch.testing.assert_close(product, torch.full_like(product, focal_baseline), rtol=1e-4, atol=0)


def test_sources_without_labels_are_resized_and_built_in_scenes_pass_as_they_are(rig: Path, tmp_path: Path) -> None:
    """Built-in scenes are as they are rendered; of a source without labels the views are resized."""
    write_samples(SyntheticStereo(4, 48, 96, seed=1), tmp_path / "views", 4)
    mix = (
        SourceConfig(str(tmp_path / "views"), 0.3, labels=False),
        SourceConfig("synthetic", 0.3, pairs=3, scene_seed=7),
    )
    data = replace(DATA, root=str(rig), mix=mix)
    scenes, own = SyntheticStereo(3, *SIZE, seed=7), open_dataset(rig)
    by_name, seen = {scenes[i].name: scenes[i] for i in range(3)}, set()
    for batch in stream(open_samples(data, CPU), data, steps=10):
        sample = batch.sample
        for i, name in enumerate(sample.name):
            if name in by_name:
                assert torch.equal(sample.left[i], by_name[name].left)
                assert float(sample.camera.fx[i]) == pytest.approx(by_name[name].camera.fx)  # type: ignore[index]
            else:
                seen.add(round(float(sample.camera.fx[i]) / own[0].camera.fx, 3))  # type: ignore[index]
    assert len(seen) > 5
    only = replace(data, root="synthetic", pairs=2, mix=(mix[1],))
    with pytest.raises(InputError, match=r"data\.crop_scale 0\.6 1\.8: the built-in scenes are rendered at data\.size"):
        open_samples(only, CPU)


def config_from(words: list[str]) -> TeacherTrainingConfig:
    found = parse(["train-teacher", *words])
    assert isinstance(found, TeacherTrainingConfig)
    return found


def test_the_command_line_and_config_json_hold_it() -> None:
    config = config_from(["--data.root", "a", "--data.fit", "crop", "--data.crop-scale", "0.5", "1.5"])
    assert config.data.crop_scale == (0.5, 1.5)
    assert check(DataConfig, json.loads(json.dumps(config_dict(config.data))), "config.json") == config.data


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"crop_scale": (1.5, 0.5)}, r"data\.crop_scale: expected the lowest factor, then the highest, got 1\.5 0\.5"),
        ({"crop_scale": (0.5, 1.0), "fit": "resize"}, r"data\.crop_scale is for data\.fit crop, got .* fit resize"),
        ({"crop_scale": (0.5,)}, r"data\.crop_scale: expected 2 values, such as \(1\.0, 1\.0\), got \(0\.5,\)"),
        ({"crop_scale": (0.0, 1.0)}, r"data\.crop_scale: expected a number from 0\.05 to 4, got 0\.0"),
        ({"crop_scale": (1.0, math.nan)}, r"data\.crop_scale: expected a number from 0\.05 to 4, got nan"),
    ],
)
def test_ranges_that_are_none(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        replace(DATA, **changes)


def test_frames_too_small_for_every_factor_are_named_before_the_first_step(rig: Path, tmp_path: Path) -> None:
    data = replace(DATA, root=str(rig), size=(64, 96))
    assert open_samples(data, CPU), "enlarged they fit"
    told = r"4 of 4 images are smaller at 1\.2 of their size, the largest of data\.crop_scale, than data\.size 64×96"
    with pytest.raises(InputError, match=rf"{told}.*000000 of 48×96, .*a larger data\.crop_scale"):
        train_teacher(tiny_teacher(tmp_path / "run", data=replace(data, crop_scale=(0.6, 1.2))))
    assert not (tmp_path / "run" / "config.json").exists()


def test_outputs_computed_beforehand_are_refused_and_an_online_teacher_is_not(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, once = replace(DATA, root=str(rig)), replace(LOOP, steps=1)
    told = r"data\.crop_scale 0\.6 1\.8: .* expected a teacher that runs online"
    with pytest.raises(InputError, match=told):
        tiny_student(tmp_path / "student", data=data, teacher=tmp_path / "teacher", teacher_cache=tmp_path / "cache")
    with pytest.raises(InputError, match=told):
        CacheTeacherConfig(tmp_path / "teacher", tmp_path / "cache", data)
    with pytest.raises(InputError, match=told):
        batches(open_dataset(rig), data, LOOP, 0, ONE, CPU, Outputs())
    train_teacher(tiny_teacher(tmp_path / "teacher", data=data, loop=once))
    assert load_model(tmp_path / "teacher").crop_scale == SCALES
    assert "reference_focal" not in capsys.readouterr().out
    student = tiny_student(tmp_path / "student", data=data, teacher=tmp_path / "teacher", loop=once)
    train_student(student)
    assert "data.crop_scale without model.reference_focal" in capsys.readouterr().out
    train_student(replace(student, run=tmp_path / "focal", model=replace(STUDENT, reference_focal=50.0)))
    assert "without model.reference_focal" not in capsys.readouterr().out
    zooming = replace(student, run=tmp_path / "zoom", data=replace(data, crop_scale=(1.0, 1.0)))
    train_student(replace(zooming, augmentation=replace(student.augmentation, zoom=1.5)))
    assert "augmentation.zoom without model.reference_focal" in capsys.readouterr().out


def test_a_teacher_so_trained_goes_on_in_the_same_bits_and_under_no_other_range(rig: Path, tmp_path: Path) -> None:
    data = replace(DATA, root=str(rig), mix=(SourceConfig("synthetic", 0.25, pairs=2),))
    four = replace(LOOP, steps=4, keep_checkpoints=9)
    run = tiny_teacher(tmp_path / "run", data=data, loop=four)
    train_teacher(run)
    last = tmp_path / "run" / "checkpoints" / "step-00000004"
    whole = read_tensors(last / "model.safetensors")
    remove_folder(last)
    again = replace(run, loop=replace(four, resume=True))
    with pytest.raises(InputError, match=r"these differ: data\.crop_scale: "):
        train_teacher(replace(again, data=replace(data, crop_scale=(0.6, 1.5))))
    train_teacher(again)
    bits = read_tensors(last / "model.safetensors")
    assert [name for name in whole if not torch.equal(whole[name], bits[name])] == []


def test_a_run_from_before_the_setting_goes_on(rig: Path, tmp_path: Path) -> None:
    data = replace(DATA, root=str(rig), crop_scale=(1.0, 1.0))
    run = tiny_teacher(tmp_path / "run", data=data, loop=replace(LOOP, steps=2))
    train_teacher(run)
    for file in (tmp_path / "run" / "config.json", tmp_path / "run" / "checkpoints" / "step-00000002" / "config.json"):
        config = json.loads(file.read_text())
        del config["data"]["crop_scale"]
        file.write_text(json.dumps(config))
    again = replace(run, loop=replace(run.loop, resume=True))
    assert len(train_teacher(again)) > 0
    with pytest.raises(InputError, match=r"these differ: data\.crop_scale: "):
        train_teacher(replace(again, data=replace(data, crop_scale=SCALES)))
