#!/usr/bin/env bash
# On a machine with a GPU and an installed torch and triton, no network needed: parity of every kernel, benchmarks, a
# short real training, within a budget of minutes. Results are JSON, ready to commit; --help lists the stages.
#   scripts/gpu_check.sh --out bench/results/h200 --minutes 25          everything, the most valuable first
#   scripts/gpu_check.sh --out bench/results/h200 cost-volume           one stage (and the doctor before it)
#   scripts/gpu_check.sh --rehearse                                     the same on a CPU, tiny, in the interpreter
# $PYTHON names the interpreter; $ADU_REAL_STEREO a folder of real pairs to train on; $ADU_COMMIT the commit, where the
# sources lie outside a git checkout.
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
