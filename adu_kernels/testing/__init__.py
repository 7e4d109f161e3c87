"""For whoever verifies a kernel, with a GPU or without one.

parity.py: error budgets, layouts, bits, registration, tracing, each a check. suite.py: the tests that every operation
passes, made of them. machine_code/: what each kernel compiles to, for five GPU families. executed_ptx/: compiled
kernels executed on the CPU. fake_cuda/: whole programs on fake CUDA tensors. gpu_specs.py: vendors' figures of GPUs.
"""
