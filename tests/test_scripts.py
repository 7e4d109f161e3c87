"""The shell scripts, with a stand-in for Python that keeps a list of "installed" packages and writes down its calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"

# `installed` lists packages, as pip would. As on a server without libGL, cv2 loads with the headless build alone:
# `cv2_files` says which of the two builds wrote the shared folder last, and uninstalling either one empties it.
PYTHON = r"""#!/usr/bin/env bash
state=$STATE
echo "$*" >>"$state/calls"
case "$*" in
    "-c import sys"*) exit 0 ;;
    "--version") echo "Python 3.12.0" ;;
    "-m venv "*)
        [ ! -e "$state/venv_fails" ] || exit 1
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/has_pip"
        rm -f "$state"/installed "$state"/cv2_files ;;
    "-m pip --version") [ -e "$(dirname "$0")/../has_pip" ] ;;
    "-m pip show opencv-python")
        grep -qx opencv-python "$state/installed" || { echo "WARNING: Package(s) not found" >&2; exit 1; }
        echo "Name: opencv-python"; echo "Version: 4.12.0.88" ;;
    "-m pip uninstall "*opencv-python) sed -i '/^opencv-python$/d' "$state/installed"; rm -f "$state/cv2_files" ;;
    "-m pip install "*opencv-python-headless==*)
        if [[ "$*" == *--force-reinstall* ]] || ! grep -qx opencv-python-headless "$state/installed"; then
            echo opencv-python-headless >>"$state/installed"; echo headless >"$state/cv2_files"
        fi ;;
    "-m pip install "*" -e "*)
        printf '#!/usr/bin/env bash\necho "ran in $PWD: $*"\n' >"$(dirname "$0")/adu-depth"
        chmod +x "$(dirname "$0")/adu-depth"
        [ -e "$state/no_opencv" ] || grep -qx opencv-python "$state/installed" 2>/dev/null ||
            { echo opencv-python >>"$state/installed"; echo full >"$state/cv2_files"; } ;;
    "-m pip install "*" --target "*)
        [ ! -e "$state/no_such_triton" ] || { echo "ERROR: No matching distribution found" >&2; exit 1; }
        mkdir -p "${@: -2:1}" && echo "${@: -1}" >"${@: -2:1}/version" ;;
    "-c import triton"*) sed 's/.*==//' "${PYTHONPATH%%:*}/version" ;;
    "-m pytest "*)
        echo "pytest with ${PYTHONPATH:-no path}: $*"
        if [ -e "$state/pytest_codes" ]; then # of the run with compiled kernels, then of the other
            read -r compiled interpreted <"$state/pytest_codes"
            [ "$TRITON_INTERPRET" = 0 ] && exit "$compiled"
            exit "$interpreted"
        fi ;;
    "-m pip install "* | "-m ruff "* | "-m mypy") ;;
    "-c import cv2")
        [ "$(cat "$state/cv2_files" 2>/dev/null)" = headless ] || { echo "ImportError: libGL.so.1" >&2; exit 1; } ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Checkout:
    """A copy of what the scripts need, with a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "a checkout", folder / "state"
        shutil.copytree(SCRIPTS, self.root / "scripts")
        (self.root / "pyproject.toml").write_text("[project]\n")
        self.state.mkdir()
        self.python = folder / "stand-in-python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.venv = self.root / ".venv"

    def quickstart(self, *arguments: str, where: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("quickstart.sh", *arguments, where=where)

    def run(self, script: str, *arguments: str, where: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHON": str(self.python), "STATE": str(self.state), "PYTHONPATH": ""}
        command = ["bash", str(self.root / "scripts" / script), *arguments]
        (self.state / "calls").write_text("")
        return subprocess.run(
            command, cwd=where or self.root, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self) -> str:
        return (self.state / "calls").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_quickstart_runs_in_the_callers_folder_and_installs_once(checkout: Checkout, tmp_path: Path) -> None:
    first = checkout.quickstart("--output", "mine", where=tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"ran in {tmp_path}: quickstart --output mine" in first.stdout
    assert "pip install" in checkout.calls()
    assert checkout.quickstart().returncode == 0
    assert "pip" not in checkout.calls()


@pytest.mark.parametrize(
    ("given", "called"),
    [
        (["--seeds", "3"], "quickstart --seeds 3"),
        (["--scale", "built-in", "--seeds", "3"], "quickstart --seeds 3"),
        (["--scale", "real", "--data.root", "my pairs"], "quickstart-real --data.root my pairs"),
        (["--data.root", "my pairs", "--scale=real"], "quickstart-real --data.root my pairs"),
        ([], "quickstart"),
    ],
)
def test_the_scale_chooses_the_command(checkout: Checkout, given: list[str], called: str) -> None:
    done = checkout.quickstart(*given)
    assert done.returncode == 0, done.stderr
    assert f"ran in {checkout.root}: {called}\n" in done.stdout


@pytest.mark.parametrize(("given", "got"), [(["--scale", "large"], "large"), (["--scale"], "nothing")])
def test_an_unknown_scale_is_refused_before_anything_is_installed(
    checkout: Checkout, given: list[str], got: str
) -> None:
    done = checkout.quickstart(*given)
    assert done.returncode == 2
    assert f"--scale: expected built-in or real, got {got}" in done.stderr
    assert checkout.calls() == ""


def test_a_second_setup_keeps_the_headless_opencv_working(checkout: Checkout) -> None:
    assert checkout.quickstart().returncode == 0
    (checkout.root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    second = checkout.quickstart()
    assert second.returncode == 0, second.stderr
    assert "pip install" in checkout.calls()


def test_an_opencv_that_cannot_be_helped_is_said(checkout: Checkout) -> None:
    (checkout.state / "no_opencv").touch()
    result = checkout.quickstart()
    assert result.returncode == 1
    assert "setup failed: import cv2 fails: ImportError: libGL.so.1" in result.stderr


def test_an_environment_without_pip_is_made_anew(checkout: Checkout) -> None:
    assert checkout.quickstart().returncode == 0
    (checkout.venv / "has_pip").unlink()
    (checkout.venv / ".installed").unlink()
    result = checkout.quickstart()
    assert result.returncode == 0, result.stderr
    assert "-m venv" in checkout.calls()


def test_an_environment_of_somebody_else_is_not_deleted(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    (checkout.venv / "thesis.txt").write_text("mine")
    (checkout.state / "venv_fails").touch()
    result = checkout.quickstart()
    assert result.returncode == 1
    assert "did not make it" in result.stderr
    assert (checkout.venv / "thesis.txt").read_text() == "mine"


def test_a_failed_environment_leaves_nothing(checkout: Checkout) -> None:
    (checkout.state / "venv_fails").touch()
    result = checkout.quickstart()
    assert result.returncode == 1
    assert "cannot make a virtual environment" in result.stderr
    assert not checkout.venv.exists()


def test_another_triton_stands_in_front_and_is_installed_once(checkout: Checkout) -> None:
    (checkout.root / "tests" / "kernels").mkdir(parents=True)
    first = checkout.run("test.sh", "--triton", "3.6.0", "-k", "parity")
    assert first.returncode == 0, first.stderr
    folder = checkout.root / ".cache" / "triton-3.6.0"
    assert f"pytest with {folder}: -m pytest -m not gpu and not slow" in first.stdout
    assert "worksteal tests/executed_ptx -k parity" in first.stdout
    assert first.stdout.rstrip().endswith("tests/kernels tests/machine_code tests/stub_driver -k parity")
    assert "-m pip install --quiet --disable-pip-version-check --no-deps --target" in checkout.calls()
    assert "ruff" not in checkout.calls()
    second = checkout.run("test.sh", "tests/kernels::test_one", "--triton=3.6.0")
    assert second.stdout.rstrip().endswith("loadfile tests/kernels::test_one")
    assert "pip" not in checkout.calls()


def test_without_an_option_style_types_and_every_test_run_with_the_pinned_triton(checkout: Checkout) -> None:
    done = checkout.run("test.sh", "-x")
    assert done.returncode == 0, done.stderr
    assert "pytest with no path: " in done.stdout
    assert "worksteal tests/executed_ptx -x" in done.stdout
    assert done.stdout.rstrip().endswith("loadfile --ignore tests/executed_ptx -x")
    assert "-m ruff check ." in checkout.calls()
    assert "-m mypy" in checkout.calls()


@pytest.mark.parametrize(
    ("executed", "others", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 1, 2), (5, 0, 0), (0, 5, 0), (5, 5, 5)]
)
def test_either_run_of_pytest_fails_the_command(checkout: Checkout, executed: int, others: int, code: int) -> None:
    """5: no test collected, as with -k, which is right where the other run has some."""
    (checkout.state / "pytest_codes").write_text(f"{executed} {others}")
    assert checkout.run("test.sh", "-k", "one").returncode == code


@pytest.mark.parametrize(
    ("given", "runs"),
    [
        (["tests/kernels/test_a.py"], ["loadfile tests/kernels/test_a.py"]),
        (["tests/executed_ptx/test_b.py"], ["worksteal tests/executed_ptx/test_b.py"]),
        (["tests/executed_ptx", "tests/kernels"], ["worksteal tests/executed_ptx", "loadfile tests/kernels"]),
        (["./tests/kernels/test_a.py"], ["loadfile tests/kernels/test_a.py"]),
        (["ROOT/tests/executed_ptx/test_b.py::test_c"], ["worksteal tests/executed_ptx/test_b.py::test_c"]),
        (["ROOT/./tests/kernels"], ["loadfile tests/kernels"]),
        (["tests/executed_ptx_extra.py"], ["loadfile tests/executed_ptx_extra.py"]),
        (["bench/test_operations.py"], ["loadfile bench/test_operations.py"]),
        (["tests"], ["worksteal tests/executed_ptx", "loadfile tests --ignore tests/executed_ptx"]),
        (["./tests/"], ["worksteal tests/executed_ptx", "loadfile tests --ignore tests/executed_ptx"]),
    ],
)
def test_the_tests_that_were_asked_for_run_and_no_others(checkout: Checkout, given: list[str], runs: list[str]) -> None:
    done = checkout.run("test.sh", *(word.replace("ROOT", str(checkout.root)) for word in given))
    assert [line.split("--dist ")[1] for line in done.stdout.splitlines() if "--dist" in line] == runs


@pytest.mark.parametrize(
    "given",
    [
        ["--deselect", "tests/kernels/test_a.py::test_b"],
        ["--ignore", "tests/x"],
        ["--ignore-glob", "tests/*x*", "-v"],
        ["-k", "tests/x"],
        ["-p", "tests.executed_ptx.plugin"],
        ["--junitxml", "tests/out.xml"],
        ["-c", "./tests/pytest.ini"],
        ["-rs", "--deselect=tests/x"],
    ],
)
def test_an_options_value_is_no_path_of_tests(checkout: Checkout, given: list[str]) -> None:
    done = checkout.run("test.sh", *given)
    told = [line.split("--dist ")[1] for line in done.stdout.splitlines() if "--dist" in line]
    both = [
        f"worksteal tests/executed_ptx {' '.join(given)}",
        f"loadfile --ignore tests/executed_ptx {' '.join(given)}",
    ]
    assert told == both
    chosen = checkout.run("test.sh", *given, "tests/kernels").stdout.splitlines()
    assert [line.split("--dist ")[1] for line in chosen if "--dist" in line] == [
        f"loadfile tests/kernels {' '.join(given)}"
    ]


def test_a_triton_that_is_not_there_leaves_nothing(checkout: Checkout) -> None:
    (checkout.state / "no_such_triton").touch()
    done = checkout.run("test.sh", "--triton", "9.9")
    assert done.returncode == 1
    assert "setup failed: pip could not install triton 9.9" in done.stderr
    assert list((checkout.root / ".cache").glob("*")) == []
    nothing = checkout.run("test.sh", "--triton")
    assert nothing.returncode == 2
    assert "--triton: expected a version" in nothing.stderr


def test_a_wrong_triton_is_not_tested(checkout: Checkout) -> None:
    folder = checkout.root / ".cache" / "triton-3.6.0"
    folder.mkdir(parents=True)
    (folder / "version").write_text("triton==3.5.0")
    done = checkout.run("test.sh", "--triton", "3.6.0")
    assert done.returncode == 1
    assert "asked for triton 3.6.0, Python imports 3.5.0" in done.stderr
