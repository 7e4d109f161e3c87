"""The model card of a saved network, written from its run: data, settings, seed, metrics by protocol, licences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from adu_depth.checkpoint import Kind, LoadedModel, checkpoint_of, read_standing
from adu_depth.checkpoint.wholeness import STATE
from adu_depth.doctor.findings import counted
from adu_depth.errors import InputError
from adu_depth.evaluation.protocols import PROTOCOLS
from adu_depth.evaluation.table import METRIC_ORDER
from adu_depth.evaluation.uncertainty import SCALED_METRICS
from adu_depth.files import folder_name
from adu_depth.saved_network.folder import without_folders
from adu_depth.schema import Length, read_json
from adu_depth.training.history import VALIDATION, read_history

METRICS = "metrics.json"
UNKNOWN = """---
library_name: transformers
pipeline_tag: depth-estimation
tags: [adu-depth]
# license: to be filled in by who publishes these weights
---

# {name}

A depth network of the library adu-depth. Nothing is written here of how it was trained, nor of how well it does.
"""
CHANGED = (
    "> **The weights are others than when this card was written**: training and metrics below are of those before."
)
LICENCES = """## Licences

What is not stated is to be filled in by who publishes these weights, theirs also as `license:` above.

| | |
|-|-|
| weights | {weights} |
| data that they were trained on ({data}) | {data_licence} |
| weights that the training began from ({first}) | {first_licence} |
| library adu-depth | Apache-2.0 |
"""


class Measured(TypedDict):
    depth_range_m: list[float]
    images: int
    means: Annotated[dict[str, float], Length(256)]


class Evaluation(TypedDict):
    """Of a metrics.json what a card needs: the rest may be absent."""

    checkpoint: str
    data: str
    methods: Annotated[dict[str, dict[str, Measured]], Length(64)]


def model_card(
    loaded: LoadedModel,
    name: str = "",
    evaluations: Sequence[Path] = (),
    licence: str = "",
    address: str = "",
) -> str:
    """The card of a network from a run.

    name: its title; the run's folder by default. evaluations: folders that `adu-depth evaluate` wrote of it. licence:
    of the weights, an identifier of the hub's, as apache-2.0. address: the hub's name that it will have.
    InputError for a folder that is no evaluation, or another network's.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name = name or run_name(loaded.path)
    read = [read_evaluation(folder, loaded) for folder in evaluations]
    stereo = loaded.kind == "teacher"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="depth-estimation",
        license=licence or None,
        tags=["adu-depth", "depth-estimation", "stereo-depth" if stereo else "monocular-depth"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="depth-estimation",
                dataset_type=str(found.get("layout") or "other"),
                dataset_name=f"{without_parents(found['data'])}, protocol {protocol}",
                metric_type=metric,
                metric_value=round(measured["means"][metric], 6),
            )
            for found in read
            for protocol, measured in found["methods"][loaded.kind].items()
            for metric in _shown(measured)
        ]
        or None,
    )
    to_fill = "" if licence else "# license: to be filled in by who publishes these weights\n"
    parts = [
        f"---\n{data.to_yaml()}\n{to_fill}---\n\n# {name}\n",
        _what(loaded),
        _use(loaded, address or name),
        _training(loaded),
        _metrics(loaded, read),
        _licences(loaded, licence),
    ]
    return "\n".join(parts)


def changed_weights(card: str) -> str:
    """The card with a line that says that the weights are no longer those that it describes."""
    if CHANGED in card:
        return card
    lines = card.split("\n")
    title = next((i for i, line in enumerate(lines) if line.startswith("# ") and not line.startswith("# license")), 0)
    return "\n".join([*lines[: title + 1], "", CHANGED, *lines[title + 1 :]])


def run_name(checkpoint: Path) -> str:
    """What a checkpoint's run is called; of weights that lie by themselves, their folder."""
    whole = checkpoint.absolute()
    return folder_name(whole.parent.parent if whole.parent.name == "checkpoints" else whole)


def without_parents(data: str) -> str:
    """A data set by its folder's own name."""
    return os.path.basename(os.path.normpath(data)) or data


def read_evaluation(folder: Path, loaded: LoadedModel) -> Evaluation:
    """A folder's metrics.json. InputError where it is none, or of another network than this one."""
    source = folder / METRICS if folder.is_dir() else folder
    found: Evaluation = read_json(source, Evaluation)
    kind: Kind = loaded.kind
    if kind not in found["methods"]:
        raise InputError(
            f"evaluation {source}: expected metrics of a {kind}, got those of {', '.join(found['methods']) or 'none'}"
        )
    try:
        other = checkpoint_of(Path(found["checkpoint"]))
    except InputError:  # it was evaluated from another folder, or under another name: that its maker says so must do
        return found
    if not os.path.samefile(other, loaded.path):
        raise InputError(f"evaluation {source}: expected metrics of {loaded.path}, got those of {other}")
    return found


def _what(loaded: LoadedModel) -> str:
    network = str(loaded.config["model"].get("network", "adu"))
    parameters = sum(p.numel() for p in loaded.model.parameters())
    if loaded.kind == "teacher":
        what = "a stereo network: from a rectified pair, depth in metres, disparity, and how sure it is of them"
    else:
        what = "a network for single images: from one picture, depth in metres"
        what += " and how sure it is of it" if getattr(loaded.model.config, "log_scale", True) else ""
    return f"{parameters:,} parameters, {what}. Trained and run by the library adu-depth (network `{network}`).\n"


def _use(loaded: LoadedModel, name: str) -> str:
    focal = getattr(loaded.model.config, "reference_focal", None)
    given, metres = (
        "",
        (
            "It needs no camera. Its metres are those of the cameras that it was trained with: a picture with another "
            "focal length comes out too near or too far, by about the ratio of the two."
        ),
    )
    if loaded.kind == "teacher":
        given = ', right="right.png", fx=721.5, baseline=0.54'
        metres = (
            "Its metres need the camera: `fx`, the focal length in pixels of the image as it is given, and `baseline`, "
            "the distance of the two cameras in metres; without them it refuses."
        )
    elif focal is not None:
        given = ", fx=721.5"
        metres = (
            "Its metres need the camera: `fx`, the focal length in pixels of the image as it is given; without it it "
            f"refuses. Depth is scaled by it from a focal length of {focal:g} pixels at the network's size."
        )
    return f"""## Use

It is run by the installed library adu-depth (`pip install .` in a clone of its repository): the code here imports it.

```python
from transformers import pipeline

pipe = pipeline("depth-estimation", model="{name}", trust_remote_code=True)
depth = pipe("left.png"{given})["predicted_depth"]  # height × width of the image, metres
```

{metres} Images are brought to the network's size, {_size(loaded)}, and depth back to theirs, as
`adu-depth predict` does.
"""


def _size(loaded: LoadedModel) -> str:
    size = "×".join(map(str, loaded.size))
    return {
        "resize": size,
        "crop": f"which is the image's own (trained on windows of {size})",
        "centre": f"a short side of {loaded.short_side} (trained on middles of {size})",
    }[loaded.fit]


def _training(loaded: LoadedModel) -> str:
    config = loaded.config
    loop, data, model = (config.get(part) or {} for part in ("loop", "data", "model"))
    rows = {
        "data": _data(data),
        "images": _size(loaded),
        "steps": _steps(loaded, loop),
        "learning rate": (config.get("optimizer") or {}).get("learning_rate"),
        "seed": loop.get("seed"),
        "encoder": without_folders(str(model.get("encoder", ""))) if model.get("network", "adu") == "adu" else "",
        "encoder's first weights": without_folders(str(model.get("encoder_weights") or "")),
        "taught by": without_parents(str(config["teacher"])) if config.get("teacher") else "",
        "started from": without_parents(str(config["init"])) if config.get("init") else "",
        "depths": f"{model['min_depth']:g} to {model['max_depth']:g} m",
    }
    lines = [f"| {head} | {value} |" for head, value in rows.items() if value not in (None, "")]
    told = "One training; how much another seed would change is not known from it." if "seed" in loop else ""
    return "\n".join(["## Training\n", "| | |", "|-|-|", *lines, "", told, ""])


def _steps(loaded: LoadedModel, loop: Mapping[str, Any]) -> str:
    if "steps" not in loop:
        return ""
    state = loaded.path / STATE
    done = read_json(state).get("step") if state.is_file() else None
    batch = loop.get("batch_size", 0) * (loop.get("accumulate") or 1)
    return f"{done or loop['steps']} of {loop['steps']}, {batch} images each"


def _data(data: Mapping[str, Any]) -> str:
    sets = [data, *(data.get("mix") or ())]
    if "root" not in data:
        return ""
    told = []
    for one in sets:
        share = f" (share {one['share']:g})" if "share" in one else ""
        if one["root"] == "synthetic":
            kind = "varied built-in scenes" if one.get("scenery") == "varied" else "built-in scenes"
            told.append(f"{kind}, {one.get('pairs') or 'endless'}, seed {one.get('scene_seed', 0)}{share}")
            continue
        split = f", list {without_parents(one['split'])}" if one.get("split") else ""
        labels = ", labels of a classical matcher" if one.get("proxies") else ""
        told.append(f"{without_parents(one['root'])}{split}{labels}{share}")
    return "; ".join(told)


def _rendered(data: Mapping[str, Any]) -> bool:
    return all(one.get("root") == "synthetic" for one in (data, *(data.get("mix") or ())))


def _metrics(loaded: LoadedModel, evaluations: Sequence[Evaluation]) -> str:
    found = [table for one in evaluations for table in _evaluated(one, loaded.kind)]
    found += [] if found else _validated(loaded)
    told = "" if found else "Not measured; `adu-depth save --evaluation` writes here what `adu-depth evaluate` found.\n"
    return "\n".join(["## Metrics\n", *found, told])


def _evaluated(found: Any, kind: Kind) -> list[str]:
    tables = []
    for protocol, own in found["methods"][kind].items():
        methods = {name: by[protocol] for name, by in found["methods"].items() if protocol in by}
        low, high = own["depth_range_m"]
        known = PROTOCOLS.get(protocol)
        told = [f"protocol `{protocol}`" + (f" ({known.about})" if known else ""), counted(own["images"], "image")]
        told += [f"depths {low:g} to {high:g} m"] if known is None or known.capped else []
        told += [f"{name} {value}" for name in ("flip", "scale") if (value := found.get(name, "none")) != "none"]
        told += _network_size(found)
        told += ["against the proxies of a classical matcher"] if found.get("proxies") else []
        lines = [f"| {' | '.join(['', *methods])} |", f"|{'-|' * (len(methods) + 1)}"]
        for metric in _shown(own):
            values = [f"{m['means'][metric]:.4f}" if metric in m["means"] else "–" for m in methods.values()]
            lines.append(f"| {' | '.join([metric, *values])} |")
        tables.append(f"On {without_parents(found['data'])}: {', '.join(told)}.\n\n" + "\n".join(lines) + "\n")
    return tables


def _network_size(found: Mapping[str, Any]) -> list[str]:
    """What it was run at, where the evaluation says so: it need not be the size trained at."""
    if size := found.get("network_size"):
        return [f"network at {'×'.join(map(str, size))}"]
    if factor := found.get("network_factor"):
        return ["network at " + ("" if factor == 1 else f"{factor:g} of ") + "each image's own size"]
    return []


def _shown(measured: Measured) -> list[str]:
    return [name for name in METRIC_ORDER if name in measured["means"] and name not in SCALED_METRICS]


def _validated(loaded: LoadedModel) -> list[str]:
    """What the run itself measured at this checkpoint, where it validated."""
    history = loaded.path.absolute().parent.parent / "history.jsonl"
    standing = read_standing(loaded.path) if (loaded.path / STATE).is_file() and history.is_file() else None
    if standing is None:
        return []
    step = int(read_json(loaded.path / STATE)["step"])
    rows = [row for row in read_history(history, step) if row["step"] == step]
    values = {n.removeprefix(VALIDATION): v for row in rows for n, v in row.items() if n.startswith(VALIDATION)}
    if not values:
        return []
    lines = ["| | |", "|-|-|", *(f"| {name} | {value:.4f} |" for name, value in values.items())]
    return [
        f"In its own validation, which the weights were chosen by: {standing['measured']}.\n\n"
        + "\n".join(lines)
        + "\n"
    ]


def _licences(loaded: LoadedModel, licence: str) -> str:
    data, model = loaded.config.get("data") or {}, loaded.config["model"]
    weights = model.get("encoder_weights") or (model.get("encoder") if model.get("pretrained") else "")
    first = without_folders(str(weights or loaded.config.get("init") or ""))
    return LICENCES.format(
        weights=licence or "not stated",
        data=_data(data) or "not known",
        data_licence="none: rendered by the library" if _rendered(data) else "not stated",
        first=first or "random ones",
        first_licence="not stated" if first else "none",
    )
