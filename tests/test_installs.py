"""The three ways to have the operations: with everything, alone, and through the kernel hub's loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from build_kernel_hub import BACKENDS, build  # noqa: E402

USE = """
right = torch.randn(1, 8, 4, 32)
disparity, _ = kernels.correlation_disparity(right.roll(3, 3), right, 6, softmax_scale=100.0)
assert abs(disparity.median() - 3) < 0.1, disparity
"""
ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = {"adu_depth", "bench", "tests", "transformers", "accelerate", "cv2", "rich", "tyro"}
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name}: only torch, triton and numpy are there")
sys.meta_path.insert(0, Absent())
"""


def _project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_both_projects_say_the_same() -> None:
    whole, alone = _project(ROOT)["project"], _project(ROOT / "adu_kernels")["project"]
    for key in ("version", "license", "requires-python"):
        assert whole[key] == alone[key], key
    assert {d.partition(">")[0] for d in alone["dependencies"]} == {"torch", "triton", "numpy"}
    assert set(alone["dependencies"]) <= set(whole["dependencies"])


def test_the_kernels_project_lists_every_package() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "adu_kernels").rglob("__init__.py")
        if "build" not in path.relative_to(ROOT).parts
    }
    assert set(_project(ROOT / "adu_kernels")["tool"]["setuptools"]["packages"]) == found


def test_the_kernels_work_where_there_is_nothing_but_torch_triton_and_numpy(tmp_path: Path) -> None:
    code = ALONE + f"sys.path[0] = {str(ROOT)!r}\nimport torch, adu_kernels as kernels, adu_kernels.reference\n" + USE
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_hubs_loader_finds_them(tmp_path: Path) -> None:
    """As `kernels` loads: by the file, under a name of its own, adu_kernels itself not to be found."""
    for backend, variant in zip(BACKENDS, build(tmp_path / "hub"), strict=True):
        metadata = json.loads((variant / "metadata.json").read_text(encoding="utf-8"))
        assert variant.name == f"torch-{backend}"
        assert metadata["backend"] == {"type": backend}
        if backend == "cpu":
            file = variant / metadata["name"].replace("-", "_") / "__init__.py"
            code = (
                ALONE.replace('{"adu_depth"', '{"adu_kernels", "adu_depth"')
                + f"import importlib.util, torch\nspec = importlib.util.spec_from_file_location({metadata['id']!r}, "
                f"{str(file)!r})\nkernels = sys.modules[spec.name] = importlib.util.module_from_spec(spec)\n"
                "spec.loader.exec_module(kernels)\n" + USE
            )
            subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path)
    with pytest.raises(FileExistsError, match="is there already"):
        build(tmp_path / "hub")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["everything", "kernels alone", "hub"])
def test_in_a_fresh_environment(what: str, tmp_path: Path) -> None:
    """Really installed, with the network: minutes each."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pins = ["-c", str(ROOT / "scripts" / "constraints.txt")]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"  # a build leaves files beside what it builds
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: object) -> None:
        subprocess.run([str(part) for part in command], check=True, cwd=tmp_path, env=clean)

    if what == "everything":
        run(*install, *pins, source)
        run(tmp_path / "env" / "bin" / "adu-depth", "--help")
        run(python, "-c", "import torch, adu_kernels as kernels, adu_depth.models\n" + USE)
    elif what == "kernels alone":
        run(*install, *pins, source / "adu_kernels")
        run(python, "-c", "import torch, adu_kernels as kernels\n" + USE)
        run(
            python,
            "-c",
            "import importlib.util as u; assert not u.find_spec('transformers') and not u.find_spec('cv2')",
        )
    else:
        build(tmp_path / "hub")
        run(*install, *pins, "torch", "triton", "numpy")
        run(*install, "kernels")
        load = "import torch, pathlib, kernels as hub\nkernels = hub.get_local_kernel(pathlib.Path('hub'))\n"
        run(python, "-c", load + USE)
