"""One process of test_distributed_run.py: `xlmr-flax run`, then mining over the same mesh. Arguments: the file for what
is mined, and the flags of the run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from xlmr_flax.cli.main import main
from xlmr_flax.eval.mining import neighbours, ratio_candidates
from xlmr_flax.parallel import distributed
from xlmr_flax.parallel.mesh import make_mesh


def work(out: Path, flags: list[str]) -> int:
    code = main(['run', *flags])
    if code:
        return code
    random = np.random.default_rng(0)
    x = random.normal(size=(301, 16)).astype(np.float32)  # a remainder on any number of devices
    y = np.concatenate([x[::2] + 0.3 * random.normal(size=(151, 16)), random.normal(size=(52, 16))]).astype(np.float32)
    forward, backward = neighbours(x, y, cosine=True, mesh=make_mesh())
    if distributed.is_leader():
        found = ratio_candidates(forward, backward)
        near, back = forward.indices, backward.indices
        np.savez(out, x=found.x, y=found.y, score=found.score, near=near, back=back, values=forward.values)
    distributed.barrier('mined')
    return 0


if __name__ == '__main__':
    sys.exit(work(Path(sys.argv[1]), sys.argv[2:]))
