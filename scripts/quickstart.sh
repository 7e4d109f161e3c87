#!/usr/bin/env bash
# The main job on the built-in scenes: teacher, student alone, student distilled, one report.
# Arguments go to `adu-depth quickstart`: --seeds 3, --device cuda, --output runs/mine, --help ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
# Training on a CPU allocates and frees large temporaries at every step; glibc gives them back to the system each time,
# and page faults take a third of the step. These two keep the memory.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
exec "$PY" -m adu_depth quickstart "$@"
