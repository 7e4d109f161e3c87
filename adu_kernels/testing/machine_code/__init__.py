"""Every kernel is compiled for GPUs that need not be here, and its assembly is read.

An operation joins with one file in operations/ that says how its public function is called; what it launches is caught,
with the arguments Triton would see on a GPU. `python -m bench machine-code` prints what was found.
"""
