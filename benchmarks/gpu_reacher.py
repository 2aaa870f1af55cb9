"""LeWM at its published size in Reacher on one GPU, in slices of at most ten minutes.

    python benchmarks/gpu_reacher.py                one slice; the same command goes on
    python benchmarks/gpu_reacher.py --try-out      tiny, on any machine

Needs `pip install 'sigreg[worldmodel,reacher]'`. See full_size.py.
"""

from __future__ import annotations

import sys

import full_size

TASK = full_size.Task("reacher", "random", episodes=10_000, length=200, published=86.0)

if __name__ == "__main__":
    sys.exit(full_size.main(TASK))
