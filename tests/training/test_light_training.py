"""The light-weight networks by the commands that the others have: trained, taught, resumed, loaded, evaluated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.cli import main, parse
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.config import DataConfig
from adu_depth.distillation import DistillationConfig, LightLoss, light_loss
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.files import checksum
from adu_depth.inference import Predictor
from adu_depth.models import LightStudent, LightTeacher, MonoStudent, StudentConfig, build_student
from adu_depth.models.bilinear import bilinear
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.tensor_files import read_tensors
from adu_depth.training.batches import batches
from adu_depth.training.config import OptimizerConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.runs import train_student, train_teacher
from adu_kernels import depth_gradient_normal_loss, laplace_nll
from tests.data.trees import save_image
from tests.training.tiny import LOOP, tiny_scenes, tiny_student, tiny_teacher

LIGHT = StudentConfig(network="light")
TWO = replace(LOOP, steps=2)
LN2 = math.log(2)


def light(run: Path, **changes: object) -> StudentTrainingConfig:
    return tiny_student(run, **{"model": LIGHT, "loop": TWO, **changes})


def maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator("cpu").manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_objective_is_the_published_one(share: float) -> None:
    """λL(N_s, g) + (1 − λ)L(N_s, N_t) on the labelled half, L(N_s, N_t) on the other."""
    depth, teacher, target = (1 + 4 * maps(seed, 4, 1, 12, 16) for seed in range(3))
    target[2:] = 0
    target[0, 0, :3] = 90.0  # beyond the bounds: none
    depth.requires_grad_()
    prediction = DepthPrediction(depth, None, ())
    loss = LightLoss(DistillationConfig(truth_share=share), 0.1, 10.0)
    terms = loss(prediction, TeacherTargets(teacher, ()), target, 0.0)

    def published(of: slice, against: torch.Tensor) -> torch.Tensor:
        return depth_gradient_normal_loss(depth[of], against[of], min_depth=0.1, max_depth=10.0).total

    labelled, others = slice(0, 2), slice(2, 4)
    expected = share * published(labelled, target) + (1 - share) * published(labelled, teacher)
    expected = expected + published(others, teacher)
    torch.testing.assert_close(terms["total"], expected)
    torch.testing.assert_close(terms["unlabelled"], published(others, teacher))
    [grad] = torch.autograd.grad(terms["total"], depth)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, depth)[0])
    alone = loss(prediction, None, target, 0.0)
    torch.testing.assert_close(alone["total"], published(labelled, target), msg="λ is of what is taught")
    assert alone.keys() == {"total", "truth"}


def pixels(*metres: float) -> torch.Tensor:
    """Images of one pixel: no slope, and upright normals. L(d, g) is ln(|d − g| + ½) − 2 ln 2 there."""
    return torch.tensor(metres, dtype=torch.float32).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("normalize", ["batch", "image"])
def test_the_objective_by_hand(normalize: Literal["batch", "image"]) -> None:
    """One labelled image, ½ m from the truth and 1½ m from the teacher, and two others, 3½ m and 0 m from him."""
    depth = pixels(2.0, 2.0, 2.0).requires_grad_()
    teacher, target = TeacherTargets(pixels(3.5, 5.5, 2.0), ()), pixels(2.5, 0, 0)
    loss = LightLoss(DistillationConfig(truth_share=0.25, normalize=normalize), 0.1, 10.0)
    terms = loss(DepthPrediction(depth, None, ()), teacher, target, 0.0)
    told = {name: term.item() for name, term in terms.items()}
    one = 0.25 * -2 * LN2 + 0.75 * -1 * LN2
    total = one + (0 - 3 * LN2) / 2 if normalize == "batch" else (one + 0 - 3 * LN2) / 3
    assert told == pytest.approx(
        {"total": total, "truth": -2 * LN2, "teacher": -LN2, "unlabelled": -1.5 * LN2}, rel=1e-6
    ), "terms are means over the images that they are taken of, whatever their share of the batch"
    [grad] = torch.autograd.grad(terms["total"], depth)
    labelled = 0.25 * -1 / 1 + 0.75 * -1 / 2
    slopes = [labelled, -1 / 4 / 2, 0] if normalize == "batch" else [labelled / 3, -1 / 4 / 3, 0]
    assert grad.flatten().tolist() == pytest.approx(slopes, rel=1e-6)
    none = loss(DepthPrediction(depth, None, ()), teacher, pixels(0, 0, 0), 0.0)
    assert (none["truth"], none["teacher"]) == (0, 0)
    alone = loss(DepthPrediction(depth, None, ()), None, target, 0.0)
    assert alone["truth"].item() == pytest.approx(-2 * LN2, rel=1e-6)


def test_by_image_a_step_is_the_mean_of_its_micro_batches() -> None:
    """Whatever share of each is unlabelled: of all three here, and of none and one in the halves."""
    depth, teacher, target = (1 + 4 * maps(seed, 6, 1, 12, 16) for seed in range(3))
    target[3] = target[4] = target[5] = 0
    log_scale = maps(3, 6, 1, 12, 16).requires_grad_()
    depth.requires_grad_()
    loss = LightLoss(DistillationConfig(truth_share=0.3, normalize="image"), 0.1, 10.0)

    def total(part: slice) -> torch.Tensor:
        prediction = DepthPrediction(depth[part], log_scale[part], ())
        return loss(prediction, TeacherTargets(teacher[part], ()), target[part], 0.0)["total"]

    whole, parts = total(slice(6)), torch.stack([total(slice(at, at + 2)) for at in (0, 2, 4)]).mean()
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(one, (depth, log_scale)) for one in (whole, parts)]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-5, atol=1e-7)


def test_a_log_scale_learns_beside_the_depth_and_does_not_move_it() -> None:
    """ln depth is 1 from the truth, the scale 2: a likelihood of ½ + ln 2, which a larger ln scale makes worse by ½."""
    depth, log_scale = pixels(2.0).requires_grad_(), pixels(LN2).requires_grad_()
    target = pixels(2 * math.e)
    loss = LightLoss(DistillationConfig(uncertainty=3.0), 0.1, 10.0)
    terms = loss(DepthPrediction(depth, log_scale, ()), None, target, 0.0)
    alone = loss(DepthPrediction(depth, None, ()), None, target, 0.0)
    assert terms["uncertainty"].item() == pytest.approx(0.5 + LN2, rel=1e-6)
    assert terms["total"].item() == pytest.approx(alone["total"].item() + 3 * (0.5 + LN2), rel=1e-6)
    moved = torch.autograd.grad(terms["total"], (depth, log_scale))
    assert torch.equal(moved[0], torch.autograd.grad(alone["total"], depth)[0])
    assert moved[1].item() == pytest.approx(1.5, rel=1e-6)
    loss = LightLoss(DistillationConfig(uncertainty=3.0, normalize="image"), 0.1, 10.0)
    two = DepthPrediction(pixels(2.0, 2.0), pixels(LN2, 0).requires_grad_(), ())
    terms = loss(two, None, pixels(2 * math.e, 0), 0.0)
    assert terms["uncertainty"].item() == pytest.approx(0.5 + LN2, rel=1e-6), "of the image that has a truth"
    [slope] = torch.autograd.grad(terms["total"], two.log_scale)
    assert slope.flatten().tolist() == pytest.approx([1.5 / 2, 0], rel=1e-6), "of two images"


def test_the_backend_reaches_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for operation in (depth_gradient_normal_loss, laplace_nll):

        def ask(*tensors: torch.Tensor, backend: str, operation: Any = operation, **options: Any) -> Any:
            asked.append(backend)
            return operation(*tensors, **options)

        monkeypatch.setattr(light_loss, operation.__name__, ask)
    depth, log_scale, target = (1 + maps(seed, 1, 1, 8, 8) for seed in range(3))
    prediction = DepthPrediction(depth, log_scale, ())
    LightLoss(DistillationConfig(backend="triton"), 0.1, 10.0)(prediction, TeacherTargets(depth, ()), target, 0.0)
    assert asked == ["triton"] * 4


@pytest.mark.parametrize("sizes", [((5, 7), (13, 9)), ((1, 4), (6, 4)), ((3, 3), (1, 1))])
def test_the_gradient_of_the_upsampling_is_pytorchs(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    small, large = sizes
    x = maps(0, 2, 3, *small).double().to(memory_format=torch.channels_last).requires_grad_()
    other = x.detach().clone().requires_grad_()
    grad = maps(1, 2, 3, *large).double()
    ours = bilinear(x, large)
    theirs = torch.nn.functional.interpolate(other, large, mode="bilinear", align_corners=True)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, grad)[0], torch.autograd.grad(theirs, other, grad)[0], rtol=1e-12, atol=1e-12
    )


def test_a_run_is_taught_resumed_loaded_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a network for single images: whatever this command trained may teach. Resumed, it ends in the same bits."""
    small = ["--data.size", "44", "60", "--data.pairs", "4", "--loop.batch-size", "2", "--loop.device", "cpu"]
    small += ["--loop.workers", "0", "--loop.check-every", "1"]

    def run(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        return int(stopped.value.code or 0)

    train = ["distill", "--model.network", "light", *small, "--loop.checkpoint-every", "2"]
    assert run(*train, "--run", tmp_path / "teacher", "--loop.steps", "2") == 0
    taught = [*train, "--teacher", tmp_path / "teacher", "--loop.steps", "4"]
    for name in ("whole", "stopped"):
        assert run(*taught, "--run", tmp_path / name) == 0
    resume = ["--loop.resume", "--loop.resume-from", "2"]
    assert run(*taught, "--run", tmp_path / "stopped", *resume) == 0
    files = [list_checkpoints(tmp_path / name)[-1] / "model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded = load_model(tmp_path / "whole")
    assert isinstance(loaded.model, LightStudent)
    assert loaded.size == (44, 60)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    assert {"truth", "teacher", "unlabelled"} <= rows[-1].keys()
    predictor = Predictor.from_checkpoint(tmp_path / "whole", "cpu")
    assert not predictor.predicts_uncertainty
    assert predictor.predict_image(maps(0, 3, 50, 70)).depth.shape == (1, 1, 50, 70)
    capsys.readouterr()
    evaluate = ["evaluate", tmp_path / "whole", "--protocol", "hu", "--pairs", "2", "--device", "cpu"]
    assert run(*evaluate) == 0
    told = capsys.readouterr()
    assert "delta1" in told.out
    assert "predicts no uncertainty" in told.out + told.err
    assert run(*evaluate, "--temperature", "2") == 2
    assert "predicts none" in capsys.readouterr().err
    save_image(tmp_path / "photo.png", maps(1, 3, 50, 70))
    predict = ["predict", tmp_path / "whole", tmp_path / "photo.png", "--output", tmp_path / "out", "--device", "cpu"]
    assert run(*predict, "--temperature", "2") == 2
    assert "predicts none" in capsys.readouterr().err
    assert run(*predict) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo_depth.png", "photo_depth_color.png"]


def test_a_stereo_teacher_teaches_it_on_pairs(tmp_path: Path) -> None:
    """Of a step that moves nothing the history holds what these two networks say, compared by the published loss."""
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=TWO))
    still = {"optimizer": OptimizerConfig(learning_rate=0), "augmentation": AugmentationConfig(flip=0, colour=0)}
    config = light(tmp_path / "light", teacher=tmp_path / "teacher", loop=replace(LOOP, steps=1), **still)
    [row] = train_student(config, samples=tiny_scenes())
    [batch] = batches(tiny_scenes(), config.data, config.loop, 0, ProcessGroup(), torch.device("cpu"))
    sample = batch.sample
    with torch.no_grad():
        said = load_model(config.run).model.train()(sample.left, sample.camera).depth
        taught = load_model(tmp_path / "teacher").model.eval()(sample.left, sample.right, sample.camera).depth
    bounds = {"min_depth": LIGHT.min_depth, "max_depth": LIGHT.max_depth}
    for name, against in (("teacher", taught), ("truth", sample.training_target())):
        expected = depth_gradient_normal_loss(said, against, **bounds).total.item()
        assert row[name] == pytest.approx(expected, rel=1e-4), name
    assert row["unlabelled"] == 0
    assert row["total"] == pytest.approx(0.1 * row["truth"] + 0.9 * row["teacher"], rel=1e-5)


def test_a_teacher_of_single_images_teaches_from_a_cache_and_in_features(tmp_path: Path) -> None:
    """The other student compares features: any network here has them at the three sizes."""
    train_student(tiny_student(tmp_path / "teacher", loop=TWO))
    taught = tiny_student(tmp_path / "other", loop=TWO, teacher=tmp_path / "teacher", teacher_cache=tmp_path / "cache")
    history = train_student(taught, samples=tiny_scenes())
    assert history[-1]["features"] > 0
    train_student(light(tmp_path / "light", loop=TWO))
    refused = replace(taught, run=tmp_path / "more", teacher=tmp_path / "light", teacher_cache=tmp_path / "more-cache")
    with pytest.raises(InputError, match="teacher_cache: a light student's features may be negative"):
        train_student(refused, samples=tiny_scenes())
    farther = light(tmp_path / "far", teacher=tmp_path / "light", model=replace(LIGHT, max_depth=90.0), loop=TWO)
    train_student(farther, samples=tiny_scenes())
    cached = replace(farther, run=tmp_path / "far-cached", teacher_cache=tmp_path / "far-cache")
    with pytest.raises(InputError, match=r"keeps the depths that it was trained for, 0.5 to 80 m; the student learns"):
        train_student(cached, samples=tiny_scenes())
    assert not (tmp_path / "far-cache").exists()


def weights(run: Path) -> bytes:
    return (list_checkpoints(run)[-1] / "model.safetensors").read_bytes()


def test_a_light_network_is_taught_from_a_cache_of_depth_alone(tmp_path: Path) -> None:
    """By a light student, too, of which no other can be kept. Resumed, it ends in the same bits."""
    train_student(light(tmp_path / "teacher"))
    cache = tmp_path / "cache"
    config = light(tmp_path / "run", teacher=tmp_path / "teacher", teacher_cache=cache, loop=replace(LOOP, steps=4))
    train_student(config, samples=tiny_scenes())
    assert json.loads((cache / "cache.json").read_text())["features"] is False
    parts = {name.split(".", 1)[1] for name in read_tensors(cache / "chunk-00000.safetensors") if "." in name}
    assert parts == {"depth_high", "depth_low", "depth_scale"}
    whole, loop = weights(config.run), replace(config.loop, resume=True, resume_from="2")
    train_student(replace(config, loop=loop), samples=tiny_scenes())
    assert weights(config.run) == whole
    alone = replace(DistillationConfig(), features=0.0)
    other = tiny_student(tmp_path / "other", loop=TWO, teacher=config.teacher, teacher_cache=cache)
    train_student(replace(other, distillation=alone), samples=tiny_scenes())
    with pytest.raises(InputError, match=r"features may be negative.*--distillation\.features 0"):
        train_student(replace(other, run=tmp_path / "more"), samples=tiny_scenes())
    train_student(tiny_student(tmp_path / "adu", loop=TWO))
    with pytest.raises(InputError, match=r"belongs to another run \(it differs in teacher\)"):
        train_student(replace(config, run=tmp_path / "more", teacher=tmp_path / "adu"), samples=tiny_scenes())


def test_of_a_whole_cache_a_light_network_reads_the_depth(tmp_path: Path) -> None:
    """It learns what a cache of depth alone teaches, bit for bit; there a student that compares features is refused."""
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=TWO))
    taught = tiny_student(tmp_path / "adu", loop=TWO, teacher=tmp_path / "teacher", teacher_cache=tmp_path / "both")
    train_student(taught, samples=tiny_scenes())
    for name in ("both", "depth"):
        config = light(tmp_path / f"light-{name}", teacher=taught.teacher, teacher_cache=tmp_path / name)
        train_student(config, samples=tiny_scenes())
    assert weights(tmp_path / "light-both") == weights(tmp_path / "light-depth")
    sizes = [(tmp_path / name / "chunk-00000.safetensors").stat().st_size for name in ("both", "depth")]
    assert sizes[1] < sizes[0]
    with pytest.raises(InputError, match="holds depth alone, the teacher's features are asked for too: name another"):
        train_student(replace(taught, run=tmp_path / "no", teacher_cache=tmp_path / "depth"), samples=tiny_scenes())


def test_an_encoder_begins_with_weights_of_a_file_or_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {name: tensor.contiguous() for name, tensor in LightStudent().encoder.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state | {"classifier.1.bias": torch.ones(3)}, tmp_path / "weights.pth")
    frozen = replace(tiny_student(tmp_path).optimizer, learning_rate=0.0)
    for number, source in enumerate(("weights.safetensors", "weights.pth")):
        config = light(tmp_path / str(number), optimizer=frozen, loop=replace(LOOP, steps=1))
        config = replace(config, model=replace(LIGHT, encoder_weights=str(tmp_path / source)))
        train_student(config, samples=tiny_scenes())
        loaded = load_model(config.run).model.encoder.state_dict()
        assert torch.equal(loaded["features.16.conv.2.weight"], state["features.16.conv.2.weight"])
    (tmp_path / "weights.pth").rename(tmp_path / "moved.pth")  # a run that goes on has its own
    again = replace(config, loop=replace(LOOP, steps=2, resume=True))
    train_student(again, samples=tiny_scenes())
    for source in ("", str(tmp_path / "moved.pth")):  # not named, or from another place
        train_student(replace(again, model=replace(LIGHT, encoder_weights=source)), samples=tiny_scenes())
        kept = json.loads((config.run / "config.json").read_text())
        assert kept["model"]["encoder_weights"] == str(tmp_path / "weights.pth"), "what it began with stays told"
        assert kept["encoder_weights_content"] == checksum(tmp_path / "moved.pth")
    others = replace(again, model=replace(LIGHT, encoder_weights=str(tmp_path / "weights.safetensors")))
    with pytest.raises(InputError, match=r"these differ: model\.encoder_weights: .*weights\.pth → .*weights\.safetens"):
        train_student(others, samples=tiny_scenes())

    def hub(repository: str, file: str) -> str:
        assert (repository, file) == ("someone/weights", "model.safetensors")
        return str(tmp_path / "weights.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    model = replace(LIGHT, encoder_weights="someone/weights")
    train_student(light(tmp_path / "hub", model=model, loop=replace(LOOP, steps=1)), samples=tiny_scenes())
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for source, message in (
        (str(tmp_path / "nowhere.pth"), "nowhere.pth is not a file; expected torchvision's weights"),
        ("nobody/nothing", "nobody/nothing is not a file, and the hub does not give it"),
        (str(tmp_path / "broken.pth"), "broken.pth cannot be read as weights of torch.save"),
        (str(tmp_path / "list.pth"), "expected a state dict, tensors by name, got list"),
    ):
        refused = light(tmp_path / "refused", model=replace(LIGHT, encoder_weights=source))
        with pytest.raises(InputError, match=message):
            train_student(refused, samples=tiny_scenes())
    assert not list((tmp_path / "refused").glob("*.json")), "nothing is begun with bad input"


def test_settings_that_the_network_does_not_read_are_refused() -> None:
    for make, message in (
        (lambda: StudentConfig(network="light", norm="batch"), "norm: network light reads log_scale, encoder_weights"),
        (lambda: StudentConfig(encoder_weights="x.pth"), "encoder_weights: it is for the light networks"),
        (lambda: StudentConfig(log_scale=True), "log_scale: it is for the light networks"),
        (
            lambda: StudentTrainingConfig(model=LIGHT, distillation=DistillationConfig(response=3.0)),
            r"distillation\.response: a light network reads truth_share, normalize, uncertainty, backend alone",
        ),
        (
            lambda: StudentTrainingConfig(distillation=DistillationConfig(truth_share=0.5)),
            r"distillation\.truth_share: it is for light networks",
        ),
        (lambda: StudentTrainingConfig(data=DataConfig(size=(50, 64))), "multiples of 32"),
        (lambda: TeacherTrainingConfig(data=DataConfig(size=(50, 64))), "multiples of 32"),
        (lambda: DistillationConfig(truth_share=1.5), "truth_share"),
        (
            lambda: StudentTrainingConfig(model=LIGHT, distillation=DistillationConfig(uncertainty=0.5)),
            r"distillation\.uncertainty 0\.5: this light network predicts none: expected model\.log_scale",
        ),
        (
            lambda: train_student(light(Path("run"), distillation=DistillationConfig(truth_share=0.5))),
            r"distillation\.truth_share 0\.5: there is no teacher: expected --teacher RUN",
        ),
        (
            lambda: StudentTrainingConfig(init=Path("run"), model=replace(LIGHT, encoder_weights="x.pth")),
            r"encoder_weights: the encoder begins with the weights of --init run",
        ),
    ):
        with pytest.raises(InputError, match=message):
            make()  # type: ignore[no-untyped-call]
    told = StudentTrainingConfig(model=replace(LIGHT, log_scale=True), distillation=DistillationConfig(uncertainty=0.5))
    assert told.distillation.uncertainty == 0.5
    with pytest.raises(SystemExit):
        parse(["distill", "--model.network", "lite"])


def test_networks_by_name() -> None:
    with torch.device("meta"):
        assert isinstance(build_student(StudentConfig(network="light-teacher")), LightTeacher)
        network = build_student(StudentConfig(network="light", log_scale=True))
        assert isinstance(network, LightStudent)
        assert network.config.log_scale
        assert isinstance(build_student(StudentConfig()), MonoStudent)


def test_a_run_from_before_these_settings_loads_and_goes_on(tmp_path: Path) -> None:
    config = tiny_student(tmp_path / "run", loop=replace(LOOP, steps=4))
    train_student(config, samples=tiny_scenes())
    expected = (list_checkpoints(config.run)[-1] / "model.safetensors").read_bytes()
    for file in [config.run / "config.json", *config.run.glob("checkpoints/*/config.json")]:
        told = json.loads(file.read_text())
        for name in ("network", "log_scale", "encoder_weights"):
            del told["model"][name]
        del told["distillation"]["truth_share"]
        file.write_text(json.dumps(told))
    assert isinstance(load_model(config.run).model, MonoStudent)
    train_student(replace(config, loop=replace(config.loop, resume=True, resume_from="2")), samples=tiny_scenes())
    assert (list_checkpoints(config.run)[-1] / "model.safetensors").read_bytes() == expected
