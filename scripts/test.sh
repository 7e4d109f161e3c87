#!/usr/bin/env bash
# Everything that can be checked without a GPU: style, types, tests. Arguments go to pytest.
# --triton VERSION: the kernel tests alone, with that version of Triton in place of the pinned one (installed once, under
# .cache). The machine-code gate runs too; only its budgets, those of the pinned version, are not compared.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
export TRITON_INTERPRET="${TRITON_INTERPRET:-1}"
# One thread per worker: on two cores, two threads each would wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

triton=
arguments=()
kernel_tests=(tests/kernels tests/machine_code tests/stub_driver)
while [ $# -gt 0 ]; do
    case $1 in
        --triton)
            [ -n "${2:-}" ] || { echo "--triton: expected a version, such as 3.6.0, got nothing" >&2; exit 2; }
            triton=$2
            shift 2 ;;
        --triton=*) triton=${1#*=}; shift ;;
        tests/*) kernel_tests=() arguments+=("$1"); shift ;; # the caller chooses which
        *) arguments+=("$1"); shift ;;
    esac
done
run_tests=("$PY" -m pytest -m "not gpu and not slow" --numprocesses "${TEST_PROCESSES:-2}" --dist loadfile)

if [ -n "$triton" ]; then
    installed="$root/.cache/triton-$triton"
    if [ ! -d "$installed" ]; then
        echo "installing triton $triton into .cache ..."
        partial="$installed.$$.tmp"
        trap 'rm -rf "$partial"' EXIT
        "$PY" -m pip install --quiet --disable-pip-version-check --no-deps --target "$partial" "triton==$triton" ||
            fail "pip could not install triton $triton" \
                "read pip's message above: it lists the versions there are for this Python and system"
        mv "$partial" "$installed"
    fi
    export PYTHONPATH="$installed${PYTHONPATH:+:$PYTHONPATH}"
    found=$("$PY" -c 'import triton; print(triton.__version__)')
    [ "$found" = "$triton" ] || fail "asked for triton $triton, Python imports $found" "remove $installed, then run this again"
    exec "${run_tests[@]}" ${kernel_tests[@]+"${kernel_tests[@]}"} ${arguments[@]+"${arguments[@]}"}
fi

"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m mypy
exec "${run_tests[@]}" ${arguments[@]+"${arguments[@]}"}
