"""What trainings, packings and caches write, damaged by seeded changes, and what reading each must give."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adu_depth.checkpoint import load_model, restore_checkpoint
from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.packed.dataset import PackedStereo
from adu_depth.data.packed.encoding import Window, decode_sample
from adu_depth.data.packed.shards import Shard, _opened, read_entry, read_manifest, read_note
from adu_depth.errors import InputError
from adu_depth.inference.render import write_samples
from adu_depth.models import StereoTeacher
from adu_depth.models.encoder import build_encoder
from adu_depth.progress import Progress
from adu_depth.training.history import read_history
from adu_depth.training.runs import train_student
from adu_depth.training.teacher_outputs import OutputsOnDisk
from tests.data.mutations import change
from tests.data.pack_files import pack
from tests.training.tiny import LOOP, SIZE, TEACHER, tiny_scenes, tiny_student

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 1e308, -1e-308, 2**31, 2**63, 10**19, "", "x", "\0", "../../etc/passwd",
    "ü" * 5000, [], {}, [[]], [0] * 300, {"a": {"b": {"c": []}}}, "config:resnet?depths=9999999", "theirs/model",
)  # fmt: skip
SMALL = "config:resnet?depths=1,1,1,1&hidden_sizes=8,16,24,32&embedding_size=8&layer_type=basic"


@dataclass(frozen=True)
class OwnFile:
    """A kind of file. path: in the folder that `write_all` filled. read: reads it and asserts that it makes sense."""

    name: str
    path: str
    read: Callable[[Path], object]


def mutated(data: bytes, name: str, seed: int) -> bytes:
    """Bytes changed as a disk does it; of JSON half the time a value, a name or a part as somebody would."""
    rng = random.Random(f"{name} {seed}")
    try:
        value = json.loads(data.splitlines()[0] if name == "history.jsonl" else data)
    except ValueError:
        return _header_changed(data, rng) if rng.random() < 0.5 else change(data, rng)
    if rng.random() < 0.4:
        return change(data, rng)
    for _ in range(rng.randint(1, 3)):
        _change_part(value, rng)
    text = json.dumps(value)
    if rng.random() < 0.1:
        text = text.replace("{", '{"step": NaN, ', 1) if rng.random() < 0.5 else '{"a":' * 50_000 + text
    return text.encode() + (b"\n" + data if name == "history.jsonl" else b"")


def _change_part(value: Any, rng: random.Random) -> None:
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
            value = value[key]
            continue
        kind = rng.randrange(4)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, dict):
            value[str(rng.choice(VALUES))[:50]] = value[key]
        elif kind == 2 and isinstance(value[key], int | float):
            value[key] = value[key] * rng.choice((-1, 0, 2, 10, 0.5, 10**6, 10**12)) + rng.choice((0, 1))
        else:
            value[key] = rng.choice(VALUES)
        return


def _header_changed(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header is JSON still, and says something else."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for _ in range(rng.randint(1, 3)):
        _change_part(header, rng)
    text = json.dumps(header).encode()
    told = len(text) if rng.random() < 0.9 else rng.choice((0, 2**40, 2**64 - 1, len(text) - 1))
    return told.to_bytes(8, "little") + text + data[8 + length :]


def write_all(folder: Path) -> None:
    train_student(tiny_student(folder / "run", loop=replace(LOOP, steps=4)))
    for state in folder.glob("run/checkpoints/*/state.json"):  # else no changed byte of weights gets past their sums
        state.write_text(json.dumps({"step": json.loads(state.read_text())["step"]}))
    write_samples(SyntheticStereo(3, *SIZE, seed=0), folder / "pairs", 3)
    pack(folder / "pairs", folder / "pack")
    entry = read_manifest(folder / "pack")["shards"][0]
    (folder / "shard-00000.json").write_text(json.dumps(entry))
    (folder / "packing.json").write_text(json.dumps({"format": "x", "settings": {"pairs": 3}}))
    torch.manual_seed(0)
    cache = OutputsOnDisk(folder / "cache", {"teacher": "a", "samples": 1}, 1, TEACHER.feature_channels)
    cache.claim()
    cache.fill(StereoTeacher(TEACHER).eval(), tiny_scenes(1), torch.device("cpu"), [0], Progress(enabled=False))
    build_encoder(SMALL).backbone.save_pretrained(folder / "encoder")  # type: ignore[operator, union-attr]


def a_model(path: Path) -> None:
    model = load_model(path.parent).model
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())


def a_state(path: Path) -> None:
    from adu_depth.distillation import StudentLoss
    from adu_depth.models import MonoStudent
    from adu_depth.training.tasks import StudentTask

    config = tiny_student(path)
    loss = StudentLoss(config.distillation, config.model.feature_channels, None, 0.5, 80.0)
    task = StudentTask(MonoStudent(config.model), loss, config.augmentation)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, weight_decay=0.01)
    assert restore_checkpoint(path.parent, task, optimizer) == 4
    assert all(len(optimizer.state[p]) == 3 for p in task.parameters() if p.requires_grad)


def a_run(path: Path) -> None:
    train_student(tiny_student(path.parent, loop=replace(LOOP, steps=4, resume=True)))


def a_pack(path: Path) -> None:
    dataset = open_dataset(path.parent)
    assert isinstance(dataset, PackedStereo)
    assert len(dataset) == 3
    for name in dataset.names[:1]:
        dataset.load(name)


def a_shard(path: Path) -> None:
    entry = {"file": path.name, "names": ["000000", "000001"], "content": _opened(path)[1]}
    shard = Shard(path.parent, entry)
    for place in range(2):
        for window in (None, Window(3, 5, 20, 30)):
            try:
                sample = decode_sample(lambda part, at=place: shard.tensor(at, part), shard.samples[place], window)
            except InputError as error:  # PackedStereo names the file
                raise InputError(f"{path}: {error}") from error
            assert sample.left.shape == ((3, *SIZE) if window is None else (3, 20, 30))
            assert sample.depth.shape[1:] == sample.left.shape[1:]


def a_cache(path: Path) -> None:
    found = OutputsOnDisk(path.parent, {"teacher": "a", "samples": 1}, 1, TEACHER.feature_channels)[0].decoded()
    assert found.depth.shape == (1, 1, *SIZE)
    assert [feature.shape[1] for feature in found.features] == list(TEACHER.feature_channels)


LAST = "run/checkpoints/step-00000004"
OWN_FILES = {
    file.name: file
    for file in (
        OwnFile("config.json of a checkpoint", f"{LAST}/config.json", a_model),
        OwnFile("model.safetensors", f"{LAST}/model.safetensors", a_model),
        OwnFile("training.safetensors", f"{LAST}/training.safetensors", a_state),
        OwnFile("state.json", f"{LAST}/state.json", a_state),
        OwnFile("config.json of a run", "run/config.json", a_run),
        OwnFile("history.jsonl", "run/history.jsonl", lambda path: read_history(path, 4)),
        OwnFile("pack.json", "pack/pack.json", a_pack),
        OwnFile("a shard", "pack/shard-00000.safetensors", a_shard),
        OwnFile("a shard's note", "shard-00000.json", read_entry),
        OwnFile("packing.json", "packing.json", read_note),
        OwnFile("cache.json", "cache/cache.json", a_cache),
        OwnFile("a cache file", "cache/chunk-00000.safetensors", a_cache),
        OwnFile("config.json of an encoder", "encoder/config.json", lambda path: build_encoder(str(path.parent))),
        OwnFile("weights of an encoder", "encoder/model.safetensors", lambda p: build_encoder(str(p.parent), True)),
    )
}  # fmt: skip
