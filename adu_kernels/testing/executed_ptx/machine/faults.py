"""What stops an execution."""


class Fault(Exception):
    """Something that a GPU would not forgive, or would answer with anything."""
