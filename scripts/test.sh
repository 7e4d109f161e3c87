#!/usr/bin/env bash
# Everything that can be checked without a GPU: style, types, tests. Arguments go to pytest.
# --triton VERSION: the kernel tests alone, with that version of Triton in place of the pinned one (installed once, under
# .cache). The machine-code gate runs too; only its budgets, those of the pinned version, are not compared.
# Two runs of pytest: tests/executed_ptx, where kernels are compiled, and all others, where Triton interprets them. Triton
# decides that once in a process.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
# One thread per worker: on two cores, two threads each would wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# from_root PATH: the same from the root of the checkout, be it given as ./tests/x or whole.
from_root() {
    local path=${1#"$root"/}
    path=${path#"$(pwd -P)"/}
    while [[ $path == ./* ]]; do path=${path#./}; done
    printf '%s\n' "$path"
}

triton=
arguments=()
chosen=()
chosen_executed=()
while [ $# -gt 0 ]; do
    case $1 in
        --triton)
            [ -n "${2:-}" ] || { echo "--triton: expected a version, such as 3.6.0, got nothing" >&2; exit 2; }
            triton=$2
            shift 2
            continue ;;
        --triton=*)
            triton=${1#*=}
            shift
            continue ;;
        # Their value is the next word, and may look like a path of tests.
        -[ckmopW] | --deselect | --ignore | --ignore-glob | --rootdir | --confcutdir | --basetemp | --config-file | \
            --junitxml | --junit-xml | --log-file | --cov | --cov-config | --override-ini)
            arguments+=("$1")
            shift
            [ $# -eq 0 ] || { arguments+=("$1"); shift; }
            continue ;;
    esac
    path=$(from_root "$1")
    case $path in # the caller chooses which
        tests | tests/) chosen_executed+=(tests/executed_ptx); chosen+=(tests --ignore tests/executed_ptx) ;;
        tests/executed_ptx | tests/executed_ptx[/:]*) chosen_executed+=("$path") ;;
        tests/* | bench | bench/*) chosen+=("$path") ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

failed=0
collected=
# run_tests INTERPRET DISTRIBUTION PATHS…: one run of pytest. That it has no test to run is no failure if the other has one.
run_tests() {
    local interpret=$1 distribution=$2 code=0
    shift 2
    TRITON_INTERPRET="$interpret" "$PY" -m pytest -m "not gpu and not slow" --numprocesses "${TEST_PROCESSES:-2}" \
        --dist "$distribution" "$@" ${arguments[@]+"${arguments[@]}"} || code=$?
    case $code in
        0) collected=1 ;;
        5) ;;
        *) [ "$failed" -ne 0 ] || failed=$code ;;
    esac
}

# run_both PATHS…: both runs, or the one that has the tests the caller chose; PATHS stand for "all others".
run_both() {
    if [ ${#chosen_executed[@]} -gt 0 ]; then
        run_tests 0 worksteal "${chosen_executed[@]}"
    elif [ ${#chosen[@]} -eq 0 ]; then
        run_tests 0 worksteal tests/executed_ptx
    fi
    if [ ${#chosen[@]} -gt 0 ]; then
        run_tests "${TRITON_INTERPRET:-1}" loadfile "${chosen[@]}"
    elif [ ${#chosen_executed[@]} -eq 0 ]; then
        run_tests "${TRITON_INTERPRET:-1}" loadfile "$@"
    fi
    [ "$failed" -eq 0 ] || exit "$failed"
    [ -n "$collected" ] || exit 5
    exit 0
}

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
    run_both tests/kernels tests/machine_code tests/stub_driver
fi

"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m mypy
run_both --ignore tests/executed_ptx
