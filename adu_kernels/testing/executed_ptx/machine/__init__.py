"""The machine that runs a program's blocks: threads, memory, and what is watched while they touch it."""
