"""A network under transformers' names: loaded by name, saved as a folder, pushed to a hub."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import DepthEstimatorOutput

from adu_depth.checkpoint import LoadedModel, build_model, load_model
from adu_depth.data.config import DataConfig
from adu_depth.errors import InputError
from adu_depth.files import folder_name
from adu_depth.geometry import Camera
from adu_depth.hub.configuration import AduDepthConfig
from adu_depth.hub.views import require_numbers
from adu_depth.models import takes_pairs
from adu_depth.saved_network.card import UNKNOWN, changed_weights, model_card
from adu_depth.saved_network.contents import card_of, settings_of, steps_of, texts
from adu_depth.saved_network.folder import is_saved, local_folder, push_folder, write_folder
from adu_depth.schema import check

Numbers = float | Sequence[float] | Tensor
"""One for all images, or one each."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OF_THE_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision")
NO_MATTER = frozenset(
    {
        *("trust_remote_code", "adapter_kwargs", "_commit_hash", "_from_auto", "_from_pipeline", "code_revision"),
        *("proxies", "use_safetensors", "low_cpu_mem_usage", "max_shard_size", "safe_serialization", "is_main_process"),
    }
)
"""What transformers hands over and a network of one file, whose code is installed, has no use for."""


@dataclass
class AduDepthOutput(DepthEstimatorOutput):
    """What a network says of B images of H×W, the size that it was given.

    predicted_depth: B×H×W float32, metres. log_scale: B×H×W float32, natural log of the Laplace scale of ln(depth);
    None of a network that says none. disparity: B×H×W float32, pixels of the H×W image; of a teacher. hidden_states:
    where asked for, the features at 1/8, 1/16, 1/32.
    """

    log_scale: Tensor | None = None
    disparity: Tensor | None = None


class AduDepthModel(PreTrainedModel):
    """A teacher or a student of this library as a transformers model.

    `AduDepthModel.from_pretrained(name)` takes a run folder, one of its checkpoints, a saved folder, or a hub's name;
    `save_pretrained(folder)` writes one that transformers' Auto classes and every command here take for a checkpoint.
    It works on images at the network's own size; `AduDepthImageProcessor` brings images there, and its depth back.

    Args:
        config: an `AduDepthConfig`.
        network: the network; None builds the one that the configuration describes, of random weights.

    Returns:
        Called with pixel_values, B×3×H×W floats in [0, 1], an `AduDepthOutput`. A stereo teacher takes
        right_pixel_values of the same shape, fx (focal length in pixels of the H×W image) and baseline (metres), and
        disparity_offset (pixels, 0 for most rigs), each one number or one for each image. A student with a
        `reference_focal` takes fx; any other reads none of them.

    Raises:
        InputError: a configuration or weights that are no network of this library; images of another shape or type;
            metres that need a camera, without one.

    Example:
        >>> model = AduDepthModel(AduDepthConfig()).eval()  # of a run: AduDepthModel.from_pretrained("runs/student")
        >>> with torch.no_grad():
        ...     output = model(torch.rand(1, 3, 64, 96))
        >>> output.predicted_depth.shape
        torch.Size([1, 64, 96])
    """

    config_class = AduDepthConfig
    main_input_name = "pixel_values"

    def __init__(self, config: AduDepthConfig, network: nn.Module | None = None) -> None:
        super().__init__(config)
        if network is None:
            check(DataConfig, config.data, "the configuration", "data")
            settings = {**config.model, "pretrained": False}
            network = build_model(config.kind, settings, config.backbone, "the configuration")
        self.network = network
        self.card: str | None = None
        """The text of the model card that goes with these weights; None: one is written of the configuration alone."""
        self.step: int | None = None
        """Steps that the weights were trained for, where that is known."""
        self._before: dict[str, Tensor] | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every part of the networks has drawn its own."""

    @property
    def stereo(self) -> bool:
        """Whether it takes pairs."""
        return takes_pairs(self.network)

    @property
    def reference_focal(self) -> float | None:
        """Pixels: the focal length that its depth is scaled from; None of a network that knows no other camera."""
        return getattr(self.network.config, "reference_focal", None)

    def forward(
        self,
        pixel_values: Tensor,
        right_pixel_values: Tensor | None = None,
        fx: Numbers | None = None,
        baseline: Numbers | None = None,
        disparity_offset: Numbers | None = None,
        *,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> AduDepthOutput | tuple[Tensor, ...]:
        """See the class. output_hidden_states: the features too. return_dict: False for a tuple of what there is."""
        require_numbers(self.stereo, self.reference_focal, fx, baseline)
        camera = None
        if fx is not None:
            numbers = {"fx": fx, "fy": fx, "cx": math.nan, "cy": math.nan, "baseline": baseline}
            numbers["disparity_offset"] = disparity_offset
            camera = Camera(**{n: _one_each(n, 0.0 if v is None else v, pixel_values) for n, v in numbers.items()})
        if self.stereo:
            if right_pixel_values is None:
                raise InputError("right_pixel_values: a stereo teacher needs the right image too, got none")
            prediction = self.network(pixel_values, right_pixel_values, camera)
        else:
            prediction = self.network(pixel_values, camera)
        output = AduDepthOutput(
            predicted_depth=prediction.depth.squeeze(1),
            log_scale=None if prediction.log_scale is None else prediction.log_scale.squeeze(1),
            disparity=None if prediction.disparity is None else prediction.disparity.squeeze(1),
            hidden_states=tuple(prediction.features) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    @classmethod
    def of(cls, loaded: LoadedModel) -> AduDepthModel:
        """That of a checkpoint which is loaded already, with a card of its run, or the one that lies beside it."""
        model = cls(AduDepthConfig(**settings_of(loaded), architectures=[cls.__name__]), loaded.model)
        model.step = steps_of(loaded)
        model.card = card_of(loaded) if is_saved(loaded.path) else model_card(loaded)
        model._before = {name: tensor.detach().clone() for name, tensor in loaded.model.state_dict().items()}
        return model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *model_args: Any, config: Any = None, **options: Any
    ) -> Any:
        """The network of a run folder, a checkpoint, a saved folder or a hub's name, in eval mode, fp32, on the CPU.

        Nothing that the folder holds is run; of weights safetensors alone are read, and every one must be there.

        Args:
            pretrained_model_name_or_path: a folder, which is taken where it is there, or owner/name on the hub.
            config: what transformers' Auto classes read; it must be that of the folder.
            options: cache_dir, force_download, local_files_only, token, revision: of the hub. dtype: torch.float16 or
                bfloat16 in place of fp32. device_map: one device, as "cuda". output_loading_info: also an empty report.

        Raises:
            InputError: there is no such network, its weights are damaged, missing or another network's, an option that
                has no meaning here.
        """
        hub = {name: options.pop(name) for name in OF_THE_HUB if options.get(name) is not None}
        dtype = options.pop("dtype", None) or options.pop("torch_dtype", None)
        device, told = options.pop("device_map", None), options.pop("output_loading_info", False)
        if strange := [name for name, value in options.items() if name not in NO_MATTER and value not in (None, "")]:
            raise InputError(
                f"from_pretrained: {', '.join(strange)}: no meaning here; see AduDepthModel.from_pretrained"
            )
        loaded = load_model(local_folder(pretrained_model_name_or_path, **hub))
        model = cls.of(loaded)
        if isinstance(config, AduDepthConfig):
            _require_own(config, model.config, loaded.path)
            model.config = config
        model.config.name_or_path = model.name_or_path = str(pretrained_model_name_or_path)
        if isinstance(dtype, str) and dtype != "auto":
            dtype = getattr(torch, dtype, dtype)
        if dtype not in (None, "auto", *DTYPES):
            raise InputError(f"dtype: expected float32, float16 or bfloat16, got {dtype!r}")
        model = model.to(dtype=None if dtype == "auto" else dtype, device=_device(device)).eval()
        report: dict[str, Any] = {
            "missing_keys": set(),
            "unexpected_keys": set(),
            "mismatched_keys": set(),
            "error_msgs": {},
        }
        return (model, report) if told else model

    def save_pretrained(self, save_directory: str | Path, *, push_to_hub: bool = False, **options: Any) -> None:
        """Writes the network as a folder: weights, configuration, image processor, code file, model card.

        What `adu-depth predict`, `evaluate`, `distill --teacher` and `from_pretrained` take for a checkpoint. A folder
        that is there keeps its other files, and its README.md where it held no network, or these weights.

        Args:
            save_directory: the folder.
            push_to_hub: also `push_to_hub`, to repo_id among the options, which go on to it.
            options: state_dict: other values of these weights, by this model's names. What else transformers hands
                over is for files that there are none of here.

        Raises:
            InputError: another process writes there, or the system refuses; a state_dict that is not this network's.
        """
        weights = options.pop("state_dict", None) or self.state_dict()
        tensors = {name.removeprefix("network."): tensor.detach().cpu() for name, tensor in weights.items()}
        if not options.pop("is_main_process", True):
            return
        _require_same_names(tensors, self.network.state_dict())
        card = UNKNOWN.format(name=folder_name(Path(save_directory))) if self.card is None else self.card
        step = self.step
        if self._before is not None and not _alike(tensors, self._before):
            card, step = changed_weights(card), None
        write_folder(Path(save_directory), tensors, texts(vars(self.config), card), step)
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", folder_name(Path(save_directory))), **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Saves the network to a repository of the hub, which is made where there is none; returns its address.

        A repository that has a model card keeps it.

        Args:
            repo_id: owner/name.
            options: private, token; commit_message, commit_description, revision, create_pr.

        Raises:
            InputError: the hub cannot be reached, or refuses.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / folder_name(Path(repo_id))
            self.save_pretrained(folder)
            return push_folder(folder, repo_id, keep_card=True, **options).address


def _require_own(given: AduDepthConfig, own: AduDepthConfig, path: Path) -> None:
    for name in ("kind", "data", "model", "backbone"):
        one, other = (json.loads(json.dumps(getattr(config, name))) for config in (given, own))
        if one != other:
            raise InputError(f"config: {name} is another than that of {path}; the network is rebuilt from its own")


def _require_same_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """A folder that lacks one of them, or has it of another shape, could not be loaded."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if other := sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name)):
        first = other[0]
        raise InputError(
            f"state_dict: expected this network's {len(wanted)} tensors, {len(other)} are others: {first}, expected "
            f"{wanted.get(first, 'none')}, got {given.get(first, 'none')}"
        )


def _alike(tensors: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> bool:
    """Whether these are the values of before, but for a change of type."""
    return all(torch.equal(tensors[name], tensor.to(tensors[name].dtype)) for name, tensor in before.items())


def _one_each(name: str, value: Numbers, images: Tensor) -> Tensor:
    """A number for every image, fp32, where the images are; nested lists are what a pipeline makes of batches."""
    try:
        numbers = torch.as_tensor(value, dtype=torch.float32, device=images.device).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:  # text, None in a list, lists of several lengths
        raise InputError(f"{name}: expected a number, or one for each image, got {value!r:.80}") from error
    if len(numbers) not in (1, len(images)):
        raise InputError(f"{name}: expected one number, or {len(images)}, one for each image, got {len(numbers)}")
    return numbers.expand(len(images))


def _device(given: Any) -> torch.device | None:
    if isinstance(given, dict) and len(given) == 1:
        given = next(iter(given.values()))
    if given is None or given == "auto":
        return None
    try:
        return torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device_map: expected one device, got {given!r:.80}") from error
