"""The old name of `python -m bench machine-code --gpu all`; takes its options."""

import sys

from bench.__main__ import main

sys.argv[1:1] = ["machine-code", "--gpu", "all"]
main()
