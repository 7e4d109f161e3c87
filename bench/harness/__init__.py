"""What every benchmark is made of: cases, contenders, parity, timing, roofs, results, tables."""
