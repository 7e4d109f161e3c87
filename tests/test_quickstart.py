"""What a quickstart may remove, and how it sums up its seeds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adu_depth.errors import InputError
from adu_depth.quickstart import SETTINGS, clear_output, summarise


def test_a_clearing_that_is_stopped_half_way_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seed-0").mkdir()
    for name in (SETTINGS, "report.json"):
        (tmp_path / name).write_text("{}")

    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    listed = sorted(tmp_path.iterdir(), key=lambda path: path.name != SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        patch.setattr(Path, "iterdir", lambda folder: iter(listed))
        with pytest.raises(KeyboardInterrupt):
            clear_output(tmp_path)
    clear_output(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_its_own_earlier_output_is_removed(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "seed-0" / "teacher").mkdir(parents=True)
    for name in (SETTINGS, "report.json", "report.html"):
        (own / name).write_text("{}")
    clear_output(own)
    assert list(own.iterdir()) == []
    clear_output(own)
    clear_output(tmp_path / "not there yet")


def test_folders_named_like_its_own_are_not_touched_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    with pytest.raises(InputError, match="holds 'seed-0', which no quickstart wrote"):
        clear_output(tmp_path)
    (tmp_path / SETTINGS).write_text("{}")
    (tmp_path / "seed-mine").mkdir()
    with pytest.raises(InputError, match="holds 'seed-mine'"):
        clear_output(tmp_path)
    assert (tmp_path / "seed-0").is_dir()
    file = tmp_path / SETTINGS
    with pytest.raises(InputError, match="is a file: name a folder"):
        clear_output(file)


def test_seeds_are_summed_up_by_mean_and_sample_standard_deviation() -> None:
    assert summarise([{"abs_rel": 0.5}]) == {"abs_rel": 0.5}
    several = summarise([{"abs_rel": 0.1}, {"abs_rel": 0.2}, {"abs_rel": 0.3}])
    assert several == {"abs_rel": pytest.approx(0.2), "abs_rel_sd": pytest.approx(0.1)}
