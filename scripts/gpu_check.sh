#!/usr/bin/env bash
# On a machine with a GPU and an installed torch and triton, no network needed: kernel tests, every operation and whole
# training steps beside their references, a profile, a real training; what is found is rewritten as it grows into one
# results.json, with summary.md for people and one log beside it. --help lists the stages.
#   scripts/gpu_check.sh                                     one call of 9 minutes, the most valuable first: runs/gpu
#   scripts/gpu_check.sh --continue --minutes 4              what is left of it, failed tests again, more sizes, tuning
#   scripts/gpu_check.sh --continue --from results.json      the same on another machine, going on from that file
#   scripts/gpu_check.sh parity cost-volume                  stages and benchmarks by name
#   scripts/gpu_check.sh --dry-run                           all of it on a CPU, tiny, in the interpreter
# --pack-to DIR copies the three files there whenever they change. A SIGKILL of this script ends the stage that is on,
# and leaves results.json whole. $PYTHON names the interpreter; $ADU_REAL_STEREO a folder of real pairs to train on;
# $ADU_COMMIT the commit, where the sources were copied from a git checkout without it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 "$root/.venv/bin/python"; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("triton")))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "gpu_check: no Python with torch and triton: tried ${PYTHON:+$PYTHON, }python3 and .venv; name one with PYTHON=..." >&2
    return 2
}

python=$(find_python) || exit 2
export ADU_CALLED_FROM="$PWD" PYTHONUNBUFFERED=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
cd "$root"
exec "$python" -m bench.gpu_check "$@"
