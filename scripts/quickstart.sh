#!/usr/bin/env bash
# The main job on the built-in scenes: teacher, student alone, student distilled, one report.
# Arguments go to `adu-depth quickstart`: --seeds 3, --device cuda, --output runs/mine, --help ...
# It runs where it is called: runs/quickstart, or a relative --output, is made in the caller's folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
# Training on a CPU allocates and frees large temporaries at every step; glibc gives them back to the system each time,
# and page faults take a third of the step. These two keep the memory.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
# The command and not `python -m`, which would import what happens to lie in the caller's folder.
exec "$venv/bin/adu-depth" quickstart "$@"
