"""The machine-code gate: every kernel is compiled for GPUs that need not be here, and its assembly is read.

A room joins with one file in rooms/ that says how the public operation is called; what it launches is caught, with the
arguments Triton would see on a GPU. `python -m tests.machine_code` prints the table, `--update` writes budgets.json.
"""
