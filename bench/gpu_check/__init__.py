"""What a GPU must show, in stages: `scripts/gpu_check.sh --help`. Needs no command-line library."""
