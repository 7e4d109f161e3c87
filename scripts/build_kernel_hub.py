"""Lays adu_kernels out as a repository of the kernel hub: python scripts/build_kernel_hub.py FOLDER

Then `kernels.get_local_kernel(Path(FOLDER))` loads it, and the folder can be pushed to the hub as it is. Triton kernels
need no build: the same files serve every version of torch and every GPU.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("cpu", "cuda", "rocm")
LEFT_OUT = ("__pycache__", "*.egg-info", "build", "pyproject.toml", "testing")


def build(target: Path) -> list[Path]:
    """Writes target/build/torch-cpu and the like, and returns them. What is there already is refused."""
    package = ROOT / "adu_kernels"
    if target.exists():
        raise FileExistsError(f"{target} is there already: expected the name of a new folder")
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    variants = [target / "build" / f"torch-{backend}" for backend in BACKENDS]
    for backend, variant in zip(BACKENDS, variants, strict=True):
        shutil.copytree(package, variant / "adu_kernels", ignore=shutil.ignore_patterns(*LEFT_OUT))
        metadata = {
            "id": f"_adu_kernels_{digest.hexdigest()[:12]}",  # the module's name: another version is another module
            "name": project["name"],
            "version": int(project["version"].split(".")[0]),
            "license": project["license"],
            "python-depends": [],
            "backend": {"type": backend},
        }
        (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    shutil.copy(package / "README.md", target / "README.md")
    return variants


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(*build(Path(sys.argv[1])), sep="\n")
