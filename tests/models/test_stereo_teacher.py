"""The stereo teacher."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.geometry import disparity_to_depth
from adu_depth.models import MonoStudent, StereoTeacher, TeacherConfig
from adu_depth.models.aggregation import Aggregation


@pytest.mark.parametrize("size", [(97, 131), (64, 96), (33, 20)])
def test_shapes_follow_the_image(teacher: StereoTeacher, make_pair, make_camera, size: tuple[int, int]) -> None:
    height, width = size
    left, right = make_pair(2, height, width)
    trained = teacher(left, right, make_camera(2))
    used = teacher.eval()(left, right, make_camera(2))
    for prediction in (trained, used):
        for value in (prediction.depth, prediction.log_scale, prediction.disparity):
            assert value.shape == (2, 1, height, width)
            assert value.dtype == torch.float32
        assert [tuple(f.shape) for f in prediction.features] == [
            (2, c, -(-height // s), -(-width // s)) for c, s in zip((16, 24, 32), (8, 16, 32), strict=True)
        ]
    assert [v.shape for head in trained.heads for v in head] == [(2, 1, height, width)] * 6
    assert torch.equal(trained.heads[-1][0], trained.disparity)
    assert trained.decoder_depth.shape == (2, 1, height, width)
    assert used.heads == ()
    assert used.decoder_depth is None


def test_teacher_and_student_features_have_the_same_shapes(
    teacher: StereoTeacher, student: MonoStudent, make_pair, make_camera
) -> None:
    left, right = make_pair(1, 97, 131)
    features = teacher(left, right, make_camera(1)).features
    assert [f.shape for f in features] == [f.shape for f in student(left).features]


def test_depth_and_log_scale_follow_from_the_disparity(teacher: StereoTeacher, make_pair, make_camera) -> None:
    camera = make_camera(2, disparity_offset=3.0)
    prediction = teacher(*make_pair(2, 64, 96), camera)
    torch.testing.assert_close(prediction.depth, disparity_to_depth(prediction.disparity, camera).clamp(0.5, 80.0))
    expected = 0.5 * prediction.heads[-1][1].log() - (prediction.disparity + 3.0).log()
    torch.testing.assert_close(prediction.log_scale, expected.clamp(-6, 3), rtol=1e-4, atol=1e-4)


def test_depth_stays_in_its_bounds_where_nothing_matches(teacher: StereoTeacher, make_pair, make_camera) -> None:
    """An offset that pushes disparity below zero means infinitely far, not near; a huge one means near."""
    left, right = make_pair(1, 64, 64)
    far = teacher(left, right, make_camera(1, disparity_offset=-500.0))
    near = teacher(left, right, make_camera(1, disparity_offset=500.0))
    assert torch.allclose(far.depth, torch.tensor(80.0))
    assert torch.allclose(near.depth, torch.tensor(0.5))
    assert far.log_scale.isfinite().all()


def test_every_parameter_gets_a_gradient_at_the_first_step(teacher: StereoTeacher, make_pair, make_camera) -> None:
    """The refinement's last layer starts at zero, as no correction: it moves first, those below a step later."""
    optimizer = torch.optim.SGD(teacher.parameters(), lr=1e-4)

    def still() -> list[str]:
        optimizer.zero_grad()
        prediction = teacher(*make_pair(2, 64, 96), make_camera(2))
        loss = sum(d.square().mean() for d, _ in prediction.heads) + prediction.decoder_depth.log().square().mean()
        loss.backward()
        optimizer.step()
        return [n for n, p in teacher.named_parameters() if p.grad is None or not p.grad.any()]

    first = still()
    assert first
    assert all(name.startswith("refinement.") and not name.startswith("refinement.correct.") for name in first)
    assert still() == []


def test_the_refinement_starts_as_no_correction_and_can_be_left_out(
    teacher: StereoTeacher, make_pair, make_camera
) -> None:
    heads = teacher(*make_pair(1, 64, 64), make_camera(1)).heads
    assert torch.equal(heads[-1][0], heads[-2][0])
    torch.nn.init.constant_(teacher.refinement.correct.bias, 0.75)
    heads = teacher(*make_pair(1, 64, 64), make_camera(1)).heads
    torch.testing.assert_close(heads[-1][0], heads[-2][0] + 0.75)
    assert StereoTeacher(TeacherConfig(refinement_channels=0)).refinement is None


def test_the_decoder_does_not_steer_the_matching(teacher: StereoTeacher, make_pair, make_camera) -> None:
    teacher(*make_pair(1, 64, 64), make_camera(1)).decoder_depth.sum().backward()
    assert all(p.grad is None for part in (teacher.matching, teacher.aggregation) for p in part.parameters())
    assert all(p.grad is not None for p in teacher.decoder.parameters())


def test_a_pair_does_not_feel_its_batch(teacher: StereoTeacher, make_pair, make_camera) -> None:
    left, right = make_pair(3, 64, 64)
    teacher.eval()
    with torch.no_grad():
        together = teacher(left, right, make_camera(3)).disparity[1:2]
        torch.testing.assert_close(
            together, teacher(left[1:2], right[1:2], make_camera(1)).disparity, rtol=1e-3, atol=1e-2
        )


def test_padding_by_hand_changes_nothing(teacher: StereoTeacher, make_pair, make_camera) -> None:
    left, right = make_pair(1, 50, 70)
    padded = [F.pad(view, (0, 26, 0, 14), mode="replicate") for view in (left, right)]
    teacher.eval()
    with torch.no_grad():
        inside = teacher(left, right, make_camera(1))
        by_hand = teacher(*padded, make_camera(1))
    assert torch.equal(inside.disparity, by_hand.disparity[..., :50, :70])
    assert torch.equal(inside.features[0], by_hand.features[0][..., :7, :9])


def test_more_disparities_need_no_other_weights(teacher: StereoTeacher, make_pair, make_camera) -> None:
    wider = StereoTeacher(TeacherConfig(max_disparity=64, feature_channels=(16, 24, 32), head_channels=16))
    wider.load_state_dict(teacher.state_dict())
    assert wider(*make_pair(1, 64, 64), make_camera(1)).disparity.max() > 31


@pytest.mark.parametrize("hourglasses", [0, 2])
def test_each_hourglass_adds_a_head_in_training(hourglasses: int) -> None:
    torch.manual_seed(0)
    aggregation = Aggregation(8, 8, hourglasses)
    volume, prior = torch.randn(1, 8, 8, 8, 12), torch.randn(1, 8, 8, 12)
    logits, aggregated = aggregation(volume, prior)
    assert [tuple(v.shape) for v in logits] == [(1, 8, 8, 12)] * (hourglasses + 1)
    assert aggregated.shape == (1, 8, 8, 8, 12)
    last, _ = aggregation.eval()(volume, prior)
    assert len(last) == 1
    torch.testing.assert_close(last[0], logits[-1])


def test_the_memory_format_changes_the_layout_not_the_result() -> None:
    torch.manual_seed(0)
    last = Aggregation(8, 8)
    first = Aggregation(8, 8, memory_format=torch.contiguous_format)
    first.load_state_dict(last.state_dict())
    volume, prior = torch.randn(1, 8, 8, 8, 12), torch.randn(1, 8, 8, 12)
    torch.testing.assert_close(last(volume, prior)[0][-1], first(volume, prior)[0][-1], rtol=1e-4, atol=1e-5)


def test_a_saved_teacher_is_the_same_teacher(teacher: StereoTeacher, make_pair, make_camera, tmp_path) -> None:
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    other = StereoTeacher(teacher.config)
    other.load_state_dict(torch.load(tmp_path / "teacher.pt"))
    pair = make_pair(1, 64, 64)
    assert torch.equal(teacher.eval()(*pair, make_camera(1)).disparity, other.eval()(*pair, make_camera(1)).disparity)


def test_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(StereoTeacher().state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def shifted_textures(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Four pairs of random texture, each at one whole disparity of 2 … 24 pixels."""
    texture = F.avg_pool2d(torch.rand(4, 3, 66, 162, generator=generator), 3, 1)
    texture = ((texture - 0.5) * 2 + 0.5).clamp(0, 1)
    disparity = torch.randint(2, 25, (4,), generator=generator)
    left = texture[..., 32:128]
    right = torch.stack([t[..., 32 + d : 128 + d] for t, d in zip(texture, disparity.tolist(), strict=True)])
    return left, right, disparity.float().reshape(-1, 1, 1, 1)


def test_matches_before_it_learns(make_camera) -> None:
    """Untrained features already correlate best at the true disparity, and the logits start from that."""
    torch.manual_seed(0)
    teacher = StereoTeacher(TeacherConfig(max_disparity=32)).eval()
    left, right, disparity = shifted_textures(torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = teacher(left, right, make_camera(4)).disparity
    assert (found - disparity).abs()[..., 24:].median() < 3.0


def test_learns_to_match_shifted_textures(make_camera) -> None:
    torch.manual_seed(0)
    teacher = StereoTeacher(TeacherConfig(max_disparity=32))
    optimiser = torch.optim.AdamW(teacher.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        left, right, disparity = shifted_textures(generator)
        heads = teacher(left, right, make_camera(4)).heads
        loss = sum(F.smooth_l1_loss(d, disparity.expand_as(d)) for d, _ in heads)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimiser.step()
    left, right, disparity = shifted_textures(torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = teacher.eval()(left, right, make_camera(4)).disparity
    error = (found - disparity).abs()[..., 24:]  # what stands farther left has no partner in the right view
    constant = (disparity.mean() - disparity).abs().mean()
    assert error.mean() < 1.0 < 0.5 * constant


def test_what_cannot_be_used_is_named(teacher: StereoTeacher, make_pair, make_camera) -> None:
    left, right = make_pair(1, 64, 64)
    with pytest.raises(InputError, match=r"right.*\(1, 3, 64, 64\).*\(1, 3, 64, 60\)"):
        teacher(left, right[..., :60], make_camera(1))
    with pytest.raises(InputError, match="left"):
        teacher(left[0], right, make_camera(1))
    for wrong, message in (
        ({"num_groups": 7}, "num_groups.*64.*7"),
        ({"max_disparity": 40}, "max_disparity.*16.*40"),
        ({"max_disparity": 0}, "max_disparity"),
        ({"hourglasses": -1}, "hourglasses"),
        ({"concat_channels": 0}, "concat_channels"),
        ({"min_depth": 90.0}, "min_depth"),
        ({"feature_channels": (8, 8)}, "feature_channels"),
        ({"norm": "none"}, "norm"),
    ):
        with pytest.raises(InputError, match=message):
            TeacherConfig(**wrong)  # type: ignore[arg-type]
