"""LeWM at its published size in OGBench's cube on one GPU, in slices of at most ten minutes.

    python benchmarks/gpu_cube.py                one slice; the same command goes on
    python benchmarks/gpu_cube.py --try-out      tiny, on any machine

Needs `pip install 'sigreg[worldmodel,cube]'`. See full_size.py.
"""

from __future__ import annotations

import sys

import full_size

TASK = full_size.Task("cube", "picker", episodes=10_000, length=200, published=74.0)

if __name__ == "__main__":
    sys.exit(full_size.main(TASK))
