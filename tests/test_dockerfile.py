"""The Dockerfile, where no builder is at hand: what it copies is there, versions are the scripts', its user no root."""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """(name, the rest) of each, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


@pytest.fixture(scope="module")
def image() -> list[Instruction]:
    return instructions((ROOT / "Dockerfile").read_text("utf-8"))


def of(image: list[Instruction], name: str) -> list[str]:
    return [rest for found, rest in image if found == name]


def pins() -> dict[str, str]:
    lines = (ROOT / "scripts" / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def sent(path: str) -> bool:
    """Whether .dockerignore lets a path into the build, by its last rule that fits it or a folder above it."""
    included = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        rule, keeps = line.removeprefix("!"), line.startswith("!")
        parts = path.split("/")
        names = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if rule.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, rule.removeprefix("**/")) for part in parts)
        else:
            fits = any(fnmatch.fnmatch(name, rule) for name in names)
        included = keeps if fits else included
    return included


def test_what_is_copied_is_there_and_sent_to_the_builder(image: list[Instruction]) -> None:
    copied = [shlex.split(rest)[:-1] for rest in of(image, "COPY")]
    sources = [source for sources in copied for source in sources]
    assert {"pyproject.toml", "adu_kernels", "adu_depth", "scripts/constraints.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert sent(source), source
    assert sent("adu_depth/cli.py")
    for left in (
        "runs/a/model.safetensors",
        ".git/HEAD",
        "tests/conftest.py",
        "adu_depth/__pycache__/cli.pyc",
        ".venv/a",
    ):
        assert not sent(left), left


def test_the_package_is_built_from_files_that_are_copied(image: list[Instruction]) -> None:
    """pyproject.toml names files that a build opens."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    copied = {source for rest in of(image, "COPY") for source in shlex.split(rest)[:-1]}
    assert {project["readme"], *project["license-files"]} <= copied
    for extras in re.findall(r'"\.\[([a-z,]+)\]"', " ".join(of(image, "RUN"))):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_versions_are_those_of_the_scripts(image: list[Instruction]) -> None:
    runs = " ".join(of(image, "RUN"))
    named = dict(re.findall(r"\b([a-z][a-z0-9-]+)==([0-9][0-9.]*)", runs))
    assert set(named) == {"torch", "opencv-python-headless"}
    for package, version in named.items():
        assert pins()[package] == version, package
    environment = " ".join(of(image, "ENV"))
    constraints = re.search(r"PIP_CONSTRAINT=(\S+)", environment)
    assert constraints is not None, "every pip install of the image is held to the pins"
    workdir = of(image, "WORKDIR")[0]
    assert constraints[1] == f"{workdir}/scripts/constraints.txt"
    first = [name for name, _ in image].index("ENV")
    assert all("pip install" not in rest for _, rest in image[:first])
    setup = (ROOT / "scripts" / "setup_env.sh").read_text("utf-8")
    assert f"torch=={named['torch']}" in setup


def test_the_base_is_a_python_that_the_project_runs_on(image: list[Instruction]) -> None:
    default = re.fullmatch(r"PYTHON=(3\.\d+)", of(image, "ARG")[0])
    assert default is not None
    assert default[1] in ("3.11", "3.12", "3.13")
    assert of(image, "FROM") == ["python:${PYTHON}-slim-bookworm"]


def test_both_variants_are_known_and_another_is_refused(image: list[Instruction]) -> None:
    (chosen,) = (rest for rest in of(image, "RUN") if "$VARIANT" in rest)
    assert "VARIANT=cpu" in of(image, "ARG")
    assert re.search(r" cpu\) pip install torch==\S+ --index-url \S+/whl/cpu ;;", chosen)
    assert re.search(r" cuda\) pip install torch==\S+ ;;", chosen), "PyPI's build for Linux is CUDA's"
    assert re.search(r" \*\) .*exit 2 ;;", chosen)


def test_it_runs_as_a_user_without_rights(image: list[Instruction]) -> None:
    names = [name for name, _ in image]
    user = of(image, "USER")
    assert user
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[-1]), "numbers, of which no system has to know the names"
    last = len(names) - 1 - names[::-1].index("USER")
    assert "ENTRYPOINT" in names[last:]
    assert any("adu-depth doctor" in rest for name, rest in image[last:] if name == "RUN"), "as that user"


def test_what_is_documented_is_what_is_built(image: list[Instruction]) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert "--build-arg VARIANT=cuda" in page
    assert re.search(r"docker run .*--shm-size", page)
    assert of(image, "ENTRYPOINT") == ['["adu-depth"]']
