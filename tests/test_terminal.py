"""Names that a terminal would obey are shown, not obeyed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from adu_depth.cli import main
from adu_depth.progress import Progress
from adu_depth.terminal import SafeConsole, printable, printable_name

EVIL = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\x00\udce9.png"
SHOWN = r"a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\x00\xe9.png"


def console(**options: object) -> SafeConsole:
    return SafeConsole(file=io.StringIO(), width=200, color_system=None, markup=False, **options)  # type: ignore[arg-type]


def shown(console: SafeConsole) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_what_is_active_is_written_out() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("é 深 µ × \n\t → 😀") == "é 深 µ × \n\t → 😀"
    assert printable_name("a\nerror: b") == r"a\nerror: b"


def test_every_way_to_a_console_passes_it() -> None:
    table = Table("name", title=EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    for thing in (EVIL, Text(EVIL), Text.assemble(("x", "red"), EVIL), table):
        out = console()
        out.print(thing)
        assert r"\x1b[31mred" in shown(out)
        assert "\x1b" not in shown(out)
    out = console()
    Progress(out).say(EVIL)
    for _ in Progress(out).track([1, 2], EVIL):
        pass
    assert shown(out).count(r"\x1b[31mred") == 2
    assert "\x1b" not in shown(out)


def test_colours_and_bars_still_reach_a_terminal() -> None:
    out = console(force_terminal=True, _environ={"TERM": "xterm"})
    out._color_system = 1  # type: ignore[assignment]
    out.print(Text("x", style="red"))
    with Progress(out).task(EVIL, 1) as task:
        task.advance()
    assert "\x1b[31mx\x1b[0m" in shown(out)
    assert "\x1b[?25l" in shown(out), "the bar hides the cursor"
    assert "\x1b[31mred" not in shown(out)


@pytest.mark.parametrize("arguments", [["predict", "a", "b", EVIL], [f"--{EVIL}"], ["doctor", "a", "--samples", EVIL]])
def test_arguments_that_are_refused_are_shown_so_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as code:
        main(arguments)
    assert code.value.code == 2
    shown = capsys.readouterr()
    assert "\x1b" not in shown.err + shown.out
    assert r"\x1b[31m" in shown.err


def test_help_ends_in_a_terminal_of_one_column() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adu_depth", "--help"],
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | {"COLUMNS": "1"},
    )
    assert done.returncode == 0
    assert b"quickstart" in done.stdout


@pytest.mark.parametrize("command", [["doctor"], ["predict", "."], ["evaluate"], ["splits", "--output", "."]])
def test_a_commands_errors_name_what_they_mean_without_it(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "no\x1b[2J\nerror: such"
    with pytest.raises(SystemExit) as exit_code:
        main([command[0], *command[1:], name] if command[0] != "splits" else ["splits", name, *command[1:]])
    assert exit_code.value.code == 2
    errors = capsys.readouterr().err
    assert "\x1b" not in errors
    assert sum(line.startswith("error:") for line in errors.splitlines()) <= 1


def test_the_doctor_shows_such_names(tmp_path: Path) -> None:
    from adu_depth.inference.render import write_samples
    from tests.data.trees import scenes

    write_samples(scenes(2), tmp_path / "pairs", 2)
    evil = os.fsencode(tmp_path / "pairs" / "right") + b"/\x1b[31m\xe9\nerror: x.png"
    with open(evil, "wb") as file:
        file.write(b"no image")
    done = subprocess.run(
        [sys.executable, "-m", "adu_depth", "doctor", str(tmp_path / "pairs")],
        capture_output=True,
        check=False,
        env=os.environ | {"COLUMNS": "300"},
    )
    assert rb"\x1b[31m\xe9\nerror: x.png" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
