#!/usr/bin/env bash
# The main job. --scale built-in, the default: on the built-in scenes: teacher, student alone, student distilled, one
# report; five minutes. --scale real --data.root PAIRS: from your own pairs alone, a teacher on built-in scenes, adapted
# on the pairs, and the student that it teaches; 40 minutes of two cores with a light student (--encoder-weights).
# Other arguments go to `adu-depth quickstart` or `adu-depth quickstart-real`: --device cuda, --output runs/mine, --help ...
# It runs where it is called: runs/quickstart, or a relative --output, is made in the caller's folder.
set -euo pipefail
scale=built-in
arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
        --scale) scale="${2-}" && shift ;;
        --scale=*) scale="${1#--scale=}" ;;
        *) arguments+=("$1") ;;
    esac
    [ $# -eq 0 ] || shift
done
case "$scale" in
    built-in) command=quickstart ;;
    real) command=quickstart-real ;;
    *) echo "--scale: expected built-in or real, got ${scale:-nothing}" >&2 && exit 2 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
# Training on a CPU allocates and frees large temporaries at every step; glibc gives them back to the system each time,
# and page faults take a third of the step. These two keep the memory.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
# The command and not `python -m`, which would import what happens to lie in the caller's folder.
exec "$venv/bin/adu-depth" "$command" ${arguments[@]+"${arguments[@]}"}
