"""A page on this machine on which pictures are dropped, and that shows their depth."""
