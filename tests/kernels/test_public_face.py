"""Names, signatures, dispatch: what holds for every operation alike."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch

import adu_kernels
from adu_kernels import backend, reference

pytestmark = pytest.mark.cpu

OPERATIONS = [name for name in adu_kernels.__all__ if inspect.isfunction(getattr(adu_kernels, name))]


def arguments_of(name: str) -> tuple:
    maps, volume, tokens = torch.rand(2, 1, 3, 4) + 1, torch.rand(2, 4, 3, 5), torch.rand(2, 2, 6, 4)
    return {
        "groupwise_correlation_volume": (volume, volume, 3, 2),
        "correlation_volume": (volume, volume, 3),
        "concatenation_volume": (volume, volume, 3),
        "combined_volume": (volume, volume, volume[:, :2], volume[:, :2], 3, 2),
        "volume_with_scores": (volume, volume, volume[:, :2], volume[:, :2], 3, 2),
        "correlation_disparity": (volume, volume, 3),
        "disparity_regression": (volume, 2),
        "attention_adaptation": (tokens, tokens, tokens),
        "feature_distillation_loss": (volume, volume + 1),
        "feature_distillation_losses": ([volume, maps], [volume + 1, maps + 1]),
        "pooled_guide": (maps, [(2, 3), (1, 1)]),
        "uncertainty_guide": (maps, maps > 1.2),
        "laplace_nll": (maps, maps, maps + 1),
        "depth_objective": (maps, maps, maps + 1, maps + 2),
        "group_norm": (volume, 2),
        "single_output_conv3d": (volume.unsqueeze(1), torch.rand(1, 1, 3, 3, 3), torch.rand(1)),
        "cosine_features": (volume,),
    }.get(name, (maps, maps + 1))


def _bits(result: object) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)  # type: ignore[call-overload]


def test_the_contract_is_complete() -> None:
    assert set(OPERATIONS) == {
        "groupwise_correlation_volume",
        "correlation_volume",
        "concatenation_volume",
        "combined_volume",
        "volume_with_scores",
        "correlation_disparity",
        "disparity_regression",
        "attention_adaptation",
        "feature_distillation_loss",
        "feature_distillation_losses",
        "pooled_guide",
        "silog_loss",
        "laplace_nll",
        "focal_response_loss",
        "uncertainty_guide",
        "teacher_gate",
        "depth_objective",
        "depth_gradient_normal_loss",
        "group_norm",
        "single_output_conv3d",
        "cosine_features",
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_twin_has_the_same_signature_without_backend(name: str) -> None:
    public = inspect.signature(getattr(adu_kernels, name)).parameters
    twin = inspect.signature(getattr(reference, name)).parameters
    assert public["backend"].default == "auto"
    assert public["backend"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [(p.name, p.kind, p.default) for p in public.values() if p.name != "backend"] == [
        (p.name, p.kind, p.default) for p in twin.values()
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_auto_on_cpu_and_torch_are_the_reference(name: str) -> None:
    arguments = arguments_of(name)
    expected = _bits(getattr(reference, name)(*arguments))
    for chosen in ("auto", "torch"):
        for got, want in zip(_bits(getattr(adu_kernels, name)(*arguments, backend=chosen)), expected, strict=True):
            assert torch.equal(got, want)


def test_triton_without_a_kernel_names_the_operation() -> None:
    with pytest.raises(NotImplementedError, match="unheard_of has no Triton kernel yet"):
        backend.dispatch("unheard_of", "triton", torch.ones(1), torch_twin=torch.neg)


@pytest.mark.parametrize("name", OPERATIONS)
def test_unknown_backend_names_the_three(name: str) -> None:
    with pytest.raises(ValueError, match="backend: expected one of 'auto', 'triton', 'torch', got 'cuda'"):
        getattr(adu_kernels, name)(*arguments_of(name), backend="cuda")


@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs_are_left_as_they_were(name: str) -> None:
    arguments = arguments_of(name)
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    getattr(adu_kernels, name)(*arguments)
    for was, now in zip(before, arguments, strict=True):
        assert torch.equal(was, now) if isinstance(was, torch.Tensor) else was == now


@pytest.mark.parametrize("name", OPERATIONS)
def test_traced_whole_forward_and_backward(name: str) -> None:
    """fullgraph refuses any `.item()`, boolean indexing and branch on a value."""
    operation = getattr(adu_kernels, name)
    arguments = [
        a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in arguments_of(name)
    ]
    floats = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]

    def grads(results: list[torch.Tensor]) -> list[torch.Tensor | None]:
        outputs = [r for r in results if r.requires_grad]
        return list(torch.autograd.grad(sum(o.sum() for o in outputs), floats, allow_unused=True)) if outputs else []

    torch._dynamo.reset()
    eager = _bits(operation(*arguments))
    traced = _bits(torch.compile(operation, fullgraph=True, backend="aot_eager")(*arguments))
    for got, want in zip(traced, eager, strict=True):
        torch.testing.assert_close(got, want)
    for got, want in zip(grads(traced), grads(eager), strict=True):
        if want is not None:
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_exported_runs_where_there_is_no_triton(name: str) -> None:
    given = arguments_of(name)

    class Network(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> object:
            left = iter(tensors)
            values = [next(left) if isinstance(one, torch.Tensor) else one for one in given]
            return getattr(adu_kernels, name)(*values, backend="triton")

    if any(isinstance(one, list) and isinstance(one[0], torch.Tensor) for one in given):
        pytest.skip("lists of maps: the same operation for one map is above")
    tensors = tuple(one for one in given if isinstance(one, torch.Tensor))
    graph = torch.export.export(Network(), tensors, strict=False).graph
    assert not [node for node in graph.nodes if "adu_kernels" in str(node.target)]


def test_auto_takes_the_kernel_on_a_gpu_alone() -> None:
    class OnGpu:
        is_cuda = True

    def dispatch(asked: str, tensor: object) -> str:
        twins = {"torch_twin": lambda: "torch", "triton_twin": lambda: "triton"}
        return backend.dispatch("op", asked, tensor, **twins)()  # type: ignore[arg-type]

    assert dispatch("auto", OnGpu()) == "triton"
    assert dispatch("torch", OnGpu()) == "torch"
    assert dispatch("auto", torch.zeros(1)) == "torch"
    assert dispatch("triton", torch.zeros(1)) == "triton"


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPERATIONS)
def test_auto_on_a_gpu_is_the_kernel(name: str) -> None:
    """The same call, so the same bits."""
    arguments, operation = arguments_of(name), getattr(adu_kernels, name)
    expected = _bits(operation(*arguments, backend="triton"))
    for got, want in zip(_bits(operation(*arguments)), expected, strict=True):
        assert got.is_cuda
        assert torch.equal(got, want)


def test_operations_import_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, adu_kernels\n"
        "x = torch.ones(1, 2, 2, 3)\n"
        "print(adu_kernels.correlation_volume(x, x, 2).sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "10.0"
