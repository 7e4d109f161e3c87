"""Standard streams that are closed, full, deserted or narrow: no traceback, the work is done, the code is right."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ADU = f"{shlex.quote(sys.executable)} -m adu_depth"
BENCH = f"{shlex.quote(sys.executable)} -m bench"
PRINT = """
import sys
from adu_depth.entry import run
def work(started):
    for number in range(20000):
        print("line \\u00d7", number)
    print("to stderr \\u00d7", file=sys.stderr)
    open("done", "w").write("all of it")
    return 0
sys.exit(run(work))
"""
PRINTING = f"{shlex.quote(sys.executable)} -c {shlex.quote(PRINT)}"


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of bash; its exit code is that of the first command of a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    command = ["bash", "-c", f"{line}\nexit ${{PIPESTATUS[0]}}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=120)


LOST = b"error: the standard output is lost: No space left on device; the work itself is done\n"


@pytest.mark.parametrize(
    ("redirection", "code", "err"),
    [
        ("| head -1", 0, b"to stderr \xc3\x97\n"),
        ("> /dev/full", 1, b"to stderr \xc3\x97\n" + LOST),
        (">&-", 0, b"to stderr \xc3\x97\n"),
        ("2>&- | tail -1", 0, b""),
        ("2> /dev/full | tail -1", 0, b""),
        ("<&- >&- 2>&-", 0, b""),
        ("> /dev/full 2>&1", 1, b""),
        ("2>&1 | head -1", 0, b""),
    ],
)
def test_the_work_goes_on_without_its_streams(redirection: str, code: int, err: bytes, tmp_path: Path) -> None:
    done = shell(f"{PRINTING} {redirection}", tmp_path)
    assert (done.returncode, done.stderr) == (code, err)
    assert (tmp_path / "done").read_text() == "all of it", "and no printed line went into the file"
    if "tail" in redirection:
        assert done.stdout == "line × 19999\n".encode()


@pytest.mark.parametrize(
    "narrow",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
    ],
)
def test_what_an_encoding_lacks_is_replaced(narrow: dict[str, str], tmp_path: Path) -> None:
    done = shell(f"{PRINTING} | tail -1", tmp_path, **narrow)
    assert done.returncode == 0
    times, backslashed = (b"\xd7", b"\xd7") if "cp1252" in str(narrow) else (b"?", rb"\xd7")
    assert done.stdout == b"line " + times + b" 19999\n"
    assert done.stderr == b"to stderr " + backslashed + b"\n"


def test_a_pipe_that_is_full_for_a_while_gets_everything(tmp_path: Path) -> None:
    """Whoever reads may have made the pipe non-blocking, which Python takes for an error."""
    unblock = (
        "import os, sys, time; os.set_blocking(1, False); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(unblock)} -c {shlex.quote(PRINT)} | (sleep 1; tail -1)"
    done = shell(line, tmp_path)
    assert (done.returncode, done.stdout) == (0, "line × 19999\n".encode())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"{ADU} --help > /dev/full", 1),
        (f"{ADU} render --output scenes --count 3 --size 32 64 | head -1", 0),
        (f"PYTHONIOENCODING=ascii {ADU} train-teacher --help | head -3 2>&-", 0),
        (f"PYTHONIOENCODING=ascii {BENCH} --help | head -1", 0),
    ],
)
def test_commands(line: str, code: int, tmp_path: Path) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if "render" in line:
        assert done.stdout == b"wrote scenes/preview/000000.png\n"
        assert len(list((tmp_path / "scenes" / "left").iterdir())) == 3
        assert (tmp_path / "scenes" / "camera.toml").is_file()
