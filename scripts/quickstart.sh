#!/usr/bin/env bash
# The main job on the built-in scenes: teacher, student alone, student distilled, one report.
# Arguments go to `adu-depth quickstart`: --seeds 3, --device cuda, --output runs/mine, --help ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
exec "$PY" -m adu_depth quickstart "$@"
