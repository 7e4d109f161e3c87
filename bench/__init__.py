"""Benchmarks: `python -m bench --help`. How they measure is in README.md beside this file."""

import os

# Both are read when torch loads; its profiler would write to the terminal when it starts, stops and meets older memory.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
