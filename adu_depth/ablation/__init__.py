"""One command that trains the rows of a comparison, each with several seeds, and writes one table of them."""
