#!/usr/bin/env bash
# Everything that can be checked without a GPU: style, types, tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
export TRITON_INTERPRET="${TRITON_INTERPRET:-1}"
# One thread per worker: on two cores, two threads each would wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m mypy
exec "$PY" -m pytest -m "not gpu and not slow" --numprocesses "${TEST_PROCESSES:-2}" --dist loadfile "$@"
