"""Other launch shapes than those of the tables, compiled ahead and timed beside them: `bench/gpu_check/tune.py`."""
