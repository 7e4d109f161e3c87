"""`python -m adu_depth` is the same as `adu-depth`."""

from adu_depth.entry import main

if __name__ == "__main__":
    main()
