"""What the operations share to start kernels, and within kernels. Imports no operation."""
