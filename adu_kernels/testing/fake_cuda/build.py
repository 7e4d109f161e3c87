"""The C++ half of fake CUDA: compiled once for each installed torch, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("guard.cpp")
COMPILERS = ("c++", "g++", "clang++")


class Unavailable(RuntimeError):
    """This machine cannot have fake CUDA tensors; the message says why and what would change it."""


class DoesNotCompile(RuntimeError):
    """There is a compiler, and the guard should compile with it: the message has what it said."""


def guard_library() -> Path:
    """The compiled guard of this torch, made if it is not there. Raises Unavailable, DoesNotCompile."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        raise Unavailable(
            f"torch {torch.__version__} is a GPU build and has a guard of its own; fake CUDA is for CPU builds of torch"
        )
    # The guard finds torch's libraries by their path, so another environment's guard is another library.
    digest = hashlib.sha256(SOURCE.read_bytes() + os.fsencode(_torch_folder())).hexdigest()[:12]
    library = cache_folder() / f"guard-torch-{torch.__version__}-{digest}.so"
    if not library.exists():
        compile_guard(library)
    return library


def _torch_folder() -> Path:
    return Path(torch.__file__).parent


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adu_kernels" / "fake_cuda"


def compile_guard(library: Path) -> None:
    """Compile the guard to `library`, which is whole whenever it is there. Raises Unavailable, DoesNotCompile."""
    compiler = _compiler()
    root = _torch_folder()
    library.parent.mkdir(parents=True, exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}.tmp")
    standard = "c++20" if tuple(int(n) for n in torch.__version__.split(".")[:2]) >= (2, 12) else "c++17"
    command = [*compiler, "-shared", "-fPIC", "-O1", f"-std={standard}", f"-I{root / 'include'}", str(SOURCE)]
    command += ["-o", str(partial), f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{root / 'lib'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        partial.unlink(missing_ok=True)
        said = f"{shlex.join(compiler)} could not compile {SOURCE.name} for torch {torch.__version__}"
        raise DoesNotCompile(f"{said}:\n{done.stderr}")
    partial.replace(library)


def _compiler() -> list[str]:
    """The command, with arguments where CXX has some, such as "ccache g++"."""
    named = os.environ.get("CXX", "")
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise DoesNotCompile(f"CXX: expected a command and its arguments, got {named} ({error})") from None
    candidates = [words] if words else [[name] for name in COMPILERS]
    found = next((candidate for candidate in candidates if shutil.which(candidate[0])), None)
    if found is None:
        raise Unavailable(
            f"fake CUDA needs a C++ compiler: {words[0] if words else ', '.join(COMPILERS)} not found on PATH; install "
            "g++, or name another in CXX"
        )
    return found
