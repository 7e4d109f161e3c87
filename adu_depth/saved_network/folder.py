"""A saved network's folder: a checkpoint without its training, and what transformers wants beside it.

FOLDER/model.safetensors         the network's weights
FOLDER/config.json               how to rebuild it, for `load_model` and for transformers
FOLDER/preprocessor_config.json  how images are brought to it
FOLDER/modeling_adu_depth.py     through which transformers finds the classes of the installed library
FOLDER/README.md                 the model card
FOLDER/state.json                size and sum of the weights, and the step
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from adu_depth.checkpoint.folder import MODEL
from adu_depth.checkpoint.wholeness import STATE, Sums, sums
from adu_depth.errors import InputError
from adu_depth.files import replacing, require_text_name, write_json
from adu_depth.folder_lock import locked
from adu_depth.schema import read_json

MODEL_TYPE = "adu_depth"
"""What config.json of a saved network, and of it alone, says of itself."""
CODE = "modeling_adu_depth"
"""The file, without its ending, through which transformers finds the classes."""
CONFIG, PROCESSOR, CARD, CODE_FILE = "config.json", "preprocessor_config.json", "README.md", f"{CODE}.py"
FILES = (MODEL, CONFIG, PROCESSOR, CODE_FILE, CARD, STATE)
NEEDED = (MODEL, CONFIG, CARD, STATE)
"""What is fetched from a hub to load a network; of these the last two may be absent."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CODE_TEXT = '''"""Where transformers finds the classes of this network: in the library adu-depth, to be installed."""

try:
    from adu_depth.hub import AduDepthConfig, AduDepthImageProcessor, AduDepthModel, AduDepthPipeline
except ModuleNotFoundError as error:
    if error.name == "adu_depth":
        raise ImportError(
            "this network is run by the library adu-depth, which is not installed here: `pip install .` in a clone of "
            "its repository"
        ) from error
    if error.name == "adu_depth.hub":
        raise ImportError("this network needs a newer adu-depth than the one installed here") from error
    raise

__all__ = ["AduDepthConfig", "AduDepthImageProcessor", "AduDepthModel", "AduDepthPipeline"]
'''


def write_folder(
    folder: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int | None = None
) -> None:
    """Writes the weights and the texts by name of file, state.json, and the code file.

    A folder that is there keeps its other files, and its README.md where it held no network, or these weights: somebody
    may have filled the card in. Names are given last, and the weights' last of all, after their sums: at no moment do a
    folder's files load as a network that was never saved. InputError where the system refuses, or another process
    writes there.
    """
    require_text_name(folder)
    with locked(folder, "save"), ExitStack() as written:
        if (folder / "checkpoints").exists() or ((folder / CONFIG).exists() and not is_saved(folder)):
            raise InputError(
                f"{folder}: it is a run's or something else's, which would be lost: expected another folder"
            )
        weights = written.enter_context(replacing(folder / MODEL))
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, weights)
        whole = {MODEL: sums(weights.parent, (weights.name,))[weights.name]}
        another_s = not any((folder / name).exists() for name in (MODEL, CONFIG, STATE))  # a README, but no network's
        same = another_s or saved_sum(folder) == whole[MODEL]
        keep = {CARD} if (folder / CARD).exists() and same else set()
        for name, text in {**texts, CODE_FILE: CODE_TEXT}.items():
            if name not in keep:
                written.enter_context(replacing(folder / name)).write_text(text, encoding="utf-8")
        state = written.enter_context(replacing(folder / STATE))
        write_json(state, {"files": whole} if step is None else {"step": step, "files": whole})


def is_saved(folder: Path) -> bool:
    """Whether a folder's configuration is of a saved network: a run's and a checkpoint's are not."""
    return (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("model_type") == MODEL_TYPE


def saved_sum(folder: Path) -> Any:
    """Size and sum of a folder's weights as state.json has them; None where there are none."""
    if not (folder / STATE).is_file() or not (folder / MODEL).is_file():
        return None
    known: Sums = read_json(folder / STATE, Sums)
    return known.get("files", {}).get(MODEL)


def local_folder(name: str | Path, **options: Any) -> Path:
    """The folder that a name means: itself where it is there, else that of the hub, from its cache where it has it.

    options: of huggingface_hub's `snapshot_download`. Nothing of the folder is run. InputError where there is neither.
    """
    path = Path(name)
    if path.exists() or not _HUB_NAME.fullmatch(str(name)):
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(NEEDED), **options))
    except Exception as error:  # of a dozen kinds: no network, no such name, no permission, not in the cache
        raise InputError(f"{name}: no such folder, and the hub does not give it: {first_line(error)}") from error


class Pushed(NamedTuple):
    """Where a folder was uploaded to, and whether the repository had a card before."""

    address: str
    had_card: bool


def push_folder(folder: Path, repo_id: str, *, keep_card: bool, **options: Any) -> Pushed:
    """Uploads a saved folder's own files, no others; see `AduDepthModel.push_to_hub`. keep_card: not the card, where
    the repository has one."""
    from huggingface_hub import HfApi

    made = {name: options.pop(name, None) for name in ("private", "token")}
    try:
        api = HfApi(token=made.pop("token"))
        repository = api.create_repo(repo_id, exist_ok=True, **made).repo_id
        had_card = api.file_exists(repository, CARD)
        left = [CARD] if keep_card and had_card else []
        sent = {"allow_patterns": [name for name in FILES if name not in left], "commit_message": "A trained network"}
        return Pushed(str(api.upload_folder(repo_id=repository, folder_path=folder, **{**sent, **options})), had_card)
    except Exception as error:  # of a dozen kinds: no network, offline, no permission, no such owner
        raise InputError(f"{repo_id}: cannot be pushed to the hub: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def without_folders(name: str) -> str:
    """The name of an encoder or of its weights; of a file or a folder on some machine its own name alone."""
    is_path = os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1
    return name.rstrip("/").rpartition("/")[2] if is_path and not name.startswith("config:") else name
