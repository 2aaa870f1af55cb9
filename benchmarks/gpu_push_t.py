"""LeWM at its published size in Push-T on one GPU, in slices of at most ten minutes.

    python benchmarks/gpu_push_t.py                one slice; the same command goes on
    python benchmarks/gpu_push_t.py --try-out      tiny, on any machine

Needs `pip install 'sigreg[worldmodel,push-t]'`. See full_size.py.
"""

from __future__ import annotations

import sys

import full_size

TASK = full_size.Task("push-t", "pusher", episodes=18_685, length=125, published=96.0)

if __name__ == "__main__":
    sys.exit(full_size.main(TASK))
