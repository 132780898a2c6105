"""What `scripts/benchmark.py` measures: sizes, work, clocks, and a peer beside us."""
