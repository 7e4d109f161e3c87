"""The work of `adu-depth ablation`: every row of every seed, one after the other, the table after each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console

from adu_depth.ablation.built_in import BuiltIn
from adu_depth.ablation.config import AblationConfig
from adu_depth.ablation.cost import Cost, measured_cost
from adu_depth.ablation.light_indoor import LightIndoor
from adu_depth.ablation.page import write_page
from adu_depth.ablation.preset import Preset, TrainingConfig
from adu_depth.ablation.results import (
    BEGUN,
    RESULT,
    SPENT,
    Described,
    Result,
    begin,
    clocked,
    kept_result,
    spent,
    without_places,
)
from adu_depth.ablation.rows import Row, chosen_rows
from adu_depth.ablation.table import markdown, summary
from adu_depth.checkpoint import config_dict
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.files import replacing, require_text_name, write_json
from adu_depth.folder_lock import LOCK_FILE, locked
from adu_depth.launcher import world_size
from adu_depth.progress import Progress
from adu_depth.schema import read_json
from adu_depth.training.loop import Interrupted
from adu_depth.training.resuming import without_run_settings

PRESETS: dict[str, type[Preset]] = {"light-indoor": LightIndoor, "adu": BuiltIn}
SETTINGS = "ablation.json"
"""Marks a folder as an ablation's, and says of which preset."""


def run_ablation(config: AblationConfig, console: Console) -> dict[str, Any]:
    """Trains what is not trained yet, and returns what table.json holds."""
    preset = PRESETS[config.preset](config)  # type: ignore[call-arg]
    rows = chosen_rows(preset.rows, config.rows)
    progress = Progress(console)
    if config.list:
        for row in rows:
            progress.say(f"{row.name:22} {row.says}{_reason(preset, row)}")
        return {}
    if world_size() > 1:
        raise InputError(
            f"ablation trains one row after the other in one process, got {world_size()}: start it without torchrun or "
            "accelerate launch"
        )
    require_text_name(config.folder)
    with locked(config.folder, "ablation"):
        return _Ablation(preset, rows, progress).run()


def _reason(preset: Preset, row: Row) -> str:
    lacks = preset.lacks(row)
    return f": left out, {lacks}" if lacks else ""


class _Ablation:
    """What its rows share. costs: by network, measured once."""

    def __init__(self, preset: Preset, rows: list[Row], progress: Progress) -> None:
        self.preset, self.progress = preset, progress
        self.left_out = {row.name: lacks for row in rows if (lacks := preset.lacks(row))}
        self.rows = [row for row in rows if row.name not in self.left_out]
        self.folder = preset.settings.folder
        self.seeds = range(preset.settings.seeds)
        self.costs: dict[str, Cost] = {}
        self.results: dict[tuple[str, int], Result] = {}
        self.trivial: dict[str, dict[str, float]] = {}

    def run(self) -> dict[str, Any]:
        for name, lacks in self.left_out.items():
            self.progress.say(f"{name} is left out: {lacks}")
        if not self.rows:
            raise InputError("rows: none of them can be trained; --list says why")
        self._require_ours()
        waiting = [(row, seed) for seed in self.seeds for row in self.rows if not self._kept(row, seed)]
        write_json(self.folder / SETTINGS, config_dict(self.preset.settings))
        if self.results:
            self.progress.say(f"{len(self.results)} of {len(self.rows) * len(self.seeds)} trainings are there already")
        self.preset.load(self.progress)
        self.trivial = {says: self.preset.measure(predict) for says, predict in self.preset.trivial().items()}
        table = self._write()
        for number, (row, seed) in enumerate(waiting, start=1):
            self.progress.say(f"{row.name}, seed {seed} ({number} of {len(waiting)} to be trained): {row.says}")
            self._do(row, seed)
            table = self._write()
        self.progress.say(f"table: {self.folder / 'table.md'}, page: {self.folder / 'index.html'}")
        return table

    def _require_ours(self) -> None:
        """InputError where the folder is another preset's, or holds anything that no ablation wrote."""
        mark = self.folder / SETTINGS
        if mark.is_file():
            before = read_json(mark, dict[str, Any]).get("preset")
            if before != self.preset.settings.preset:
                raise InputError(f"output {self.folder} is of preset {before}, name another for this one")
        elif strangers := [entry.name for entry in self.folder.iterdir() if entry.name != LOCK_FILE]:
            raise InputError(
                f"output {self.folder} holds {strangers[0]!r}, which no ablation wrote: name an empty folder"
            )

    def _described(self, row: Row, seed: int) -> Described:
        """The settings of a training, and what else its result depends on: its frames, how its teacher came to be."""
        identity = self.preset.identity(row)
        if row.taught_by:
            training, others = self._described(self.preset.row(row.taught_by), seed)
            identity |= {"teacher": {"row": row.taught_by, "training": training, **others}}
        return without_places(config_dict(self.preset.training(row, seed))), identity

    def _defaults(self, row: Row, seed: int) -> Described:
        """The same of settings of which none was chosen."""
        training = without_places(config_dict(type(self.preset.training(row, seed))()))
        if not row.taught_by:
            return training, {}
        teacher, others = self._defaults(self.preset.row(row.taught_by), seed)
        return training, {"teacher": {"training": teacher, **others}}

    def _kept(self, row: Row, seed: int) -> bool:
        config = self.preset.training(row, seed)
        found = kept_result(config.run, self._described(row, seed), self._defaults(row, seed))
        if found is not None:
            self.results[row.name, seed] = found
        return found is not None

    def _do(self, row: Row, seed: int) -> None:
        config = self.preset.training(row, seed)
        described = self._described(row, seed)
        begin(config.run, described)
        try:
            with clocked(config.run), without_run_settings():
                self.preset.train(row, config, self.progress)
        except Interrupted as stopped:
            raise Interrupted(stopped.signum, "the same command goes on with this ablation") from stopped
        predictor = self.preset.predictor(config)
        result = Result(
            row.name,
            seed,
            *described,
            metrics=self.preset.measure(predictor),
            cost=self._cost(config),
            seconds=spent(config.run),
            environment=describe_environment(predictor.device),
        )
        write_json(config.run / RESULT, asdict(result))
        for name in (SPENT, BEGUN):
            (config.run / name).unlink()
        self.results[row.name, seed] = result

    def _cost(self, config: TrainingConfig) -> Cost:
        network = str(config.model)
        if network not in self.costs:
            self.costs[network] = measured_cost(str(config.run), self.preset.example())
        return self.costs[network]

    def _write(self) -> dict[str, Any]:
        table = summary(self.preset, self.rows, self.results, self.left_out, self.trivial)
        write_json(self.folder / "table.json", table)
        with replacing(self.folder / "table.md") as temporary:
            temporary.write_text(markdown(table), encoding="utf-8")
        write_page(self.folder / "index.html", table)
        return table
