"""The command `adu-depth save`: a trained network as a folder that loads by name, on a hub if that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from adu_depth.arguments import Positional
from adu_depth.checkpoint import LoadedModel, load_model
from adu_depth.checkpoint.folder import MODEL
from adu_depth.checkpoint.wholeness import sums
from adu_depth.errors import InputError
from adu_depth.files import folder_name
from adu_depth.saved_network.card import UNKNOWN, model_card
from adu_depth.saved_network.contents import card_of, settings_of, steps_of, texts
from adu_depth.saved_network.folder import CARD, FILES, is_saved, push_folder, saved_sum, write_folder
from adu_depth.schema import require_kinds


@dataclass(frozen=True)
class SaveConfig:
    """Save a trained network as a folder for transformers, for `from_pretrained` by name, and for every command here.

    Writes weights (safetensors), configuration, image processor and a model card: data, settings, seed, metrics with
    their protocol, licences to fill in. Nothing leaves this machine without --push.
    """

    checkpoint: Positional[Path]
    """A run folder (its best checkpoint where it was validated, else its newest), RUN/checkpoints/best, or a checkpoint
    folder."""
    folder: Positional[Path]
    """Where to; a new folder, or one that holds this network: the card that is there then stays as it is."""
    evaluation: tuple[Path, ...] = ()
    """Folders that `adu-depth evaluate --output` wrote of this network; their metrics go onto the card."""
    name: str = ""
    """The card's title; empty: the run's folder."""
    license: str = ""
    """Of the weights, an identifier of the hub's, as apache-2.0; empty: left to be filled in."""
    push: str = ""
    """Also upload the folder's files to this repository of the Hugging Face hub, owner/name. A card that is there
    stays, unless the folder's own stayed, or evaluation, name or license ask for a new one."""
    private: bool = False
    """With --push: make a repository that is not there a private one."""

    def __post_init__(self) -> None:
        require_kinds(self)


def save_network(config: SaveConfig, console: Console) -> None:
    """Saves, says what was written; pushes where that is asked for.

    InputError for a folder with another network or another's card in it, and as `AduDepthModel.save_pretrained`.
    """
    if config.private and not config.push:
        raise InputError("private: it is for a repository of the hub, and push names none")
    loaded = load_model(config.checkpoint)
    kept = _kept_card(config, loaded)
    card = card_of(loaded)
    if not is_saved(loaded.path):
        card = model_card(loaded, config.name, config.evaluation, config.license, config.push)
    written = texts(settings_of(loaded), card or UNKNOWN.format(name=folder_name(config.folder)))
    write_folder(config.folder, loaded.model.state_dict(), written, steps_of(loaded))
    if loaded.path != config.checkpoint:
        console.print(f"checkpoint {loaded.path}")
    console.print(
        f"wrote {', '.join(FILES)} to {config.folder}{', but for the card, which stays as it was' if kept else ''}"
    )
    if config.push:
        own = kept or any(_asked(config))  # a card that somebody wrote, or wants; not merely the one of a new folder
        pushed = push_folder(config.folder, config.push, keep_card=not own, private=config.private or None)
        console.print(f"pushed: {pushed.address}")
        if pushed.had_card:
            told = f"was replaced by {config.folder / CARD}" if own else "stays as it was"
            console.print(f"the card of {config.push} {told}")
    elif not config.license and not kept:
        console.print(f"licences are to be filled in: {config.folder / CARD}")


def _kept_card(config: SaveConfig, loaded: LoadedModel) -> bool:
    """Whether the folder has this network's card, which stays. InputError where it is another's, or was to be new."""
    there = (config.folder / CARD).exists()
    if there and saved_sum(config.folder) != sums(loaded.path, (MODEL,))[MODEL]:
        raise InputError(f"{config.folder}: expected a new folder or one that holds this network, got another {CARD}")
    asked = _asked(config)
    if asked and (there or is_saved(loaded.path)):
        card = config.folder / CARD if there else loaded.path / CARD
        raise InputError(f"{asked[0]}: it is for a card that is written anew, and {card} is taken as it is")
    return there


def _asked(config: SaveConfig) -> list[str]:
    """The settings of a new card that were given."""
    return [name for name in ("evaluation", "name", "license") if getattr(config, name)]
