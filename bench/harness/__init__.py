"""What every benchmark is made of: cases, implementations, parity, timing, peaks, results, tables."""
