"""For whoever verifies a kernel without a GPU."""
