"""Benchmark of retrieval: k nearest neighbours, both ways, between two sets of unit vectors; ours and torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xlmr_flax.tools.bench.subject import BenchError, Implementation, Options, Run

BLOCK = 2048  # rows of a block in torch
NEAR = 1e-5  # float32 inner products of unit vectors differ by less when only the order of summation differs
UNIT = ''
Outcome = dict[str, np.ndarray]


def environment(options: Options) -> dict[str, str]:
    """Environment variables: every implementation runs on the CPU."""
    del options
    return {'JAX_PLATFORMS': 'cpu'}


def title(options: Options) -> str:
    return (
        f'Retrieval: exact {options["k"]} nearest neighbours both ways, 2 × {options["rows"]:,} vectors of '
        f'{options["dim"]} numbers, float32'
    )


def inputs(options: Options, folder: Path) -> None:
    """Writes x.npy and y.npy, float32 [rows, dim]: random unit vectors from one seed."""
    if min(options['rows'], options['dim'], options['k']) < 1 or options['k'] > options['rows']:
        raise BenchError(f'rows {options["rows"]}, dim {options["dim"]}: at least {options["k"]} rows and one number')
    random = np.random.default_rng(options['seed'])
    for name in 'xy':
        vectors = random.standard_normal((options['rows'], options['dim']), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f'{name}.npy', vectors)


def _sides(folder: Path) -> list[np.ndarray]:
    return [np.load(folder / f'{name}.npy', allow_pickle=False) for name in 'xy']


def _ours(options: Options, folder: Path) -> Run:
    from xlmr_flax.eval.mining import neighbours

    x, y = _sides(folder)

    def run() -> Outcome:
        forward, backward = neighbours(x, y, options['k'])
        return _outcome((forward.values, forward.indices), (backward.values, backward.indices))

    return run


def _outcome(forward: tuple[np.ndarray, np.ndarray], backward: tuple[np.ndarray, np.ndarray]) -> Outcome:
    return {
        'forward_values': forward[0],
        'forward_indices': forward[1],
        'backward_values': backward[0],
        'backward_indices': backward[1],
    }


def _torch_two_passes(options: Options, folder: Path) -> Run:
    """torch in two passes: blocks of x against all of y, then blocks of y against all of x."""
    import torch

    k, (x, y) = options['k'], map(torch.from_numpy, _sides(folder))

    def one_way(queries: torch.Tensor, pool: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        found = [(queries[i : i + BLOCK] @ pool.T).topk(k, dim=1) for i in range(0, len(queries), BLOCK)]
        values, indices = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return values, indices

    @torch.inference_mode()
    def run() -> Outcome:
        return _outcome(one_way(x, y), one_way(y, x))

    return run


def _torch_one_pass(options: Options, folder: Path) -> Run:
    """torch in one pass: each block of scores serves its rows and, transposed, its columns."""
    import torch

    k, (x, y) = options['k'], map(torch.from_numpy, _sides(folder))

    @torch.inference_mode()
    def run() -> Outcome:
        rows = []
        best, where = torch.full((len(y), k), -torch.inf), torch.full((len(y), k), -1)
        for i in range(0, len(x), BLOCK):
            scores = x[i : i + BLOCK] @ y.T
            rows.append(scores.topk(k, dim=1))
            values, places = scores.T.contiguous().topk(min(k, len(scores)), dim=1)
            best, kept = torch.cat([best, values], 1).topk(k, dim=1)
            where = torch.cat([where, places + i], 1).gather(1, kept)
        values, indices = (torch.cat(parts).numpy() for parts in zip(*rows, strict=True))
        return _outcome((values, indices), (best.numpy(), where.numpy()))

    return run


IMPLEMENTATIONS: dict[str, Implementation] = {
    'ours': Implementation(_ours),
    'torch, two passes': Implementation(_torch_two_passes, 'torch'),
    'torch, one pass': Implementation(_torch_one_pass, 'torch'),
}


def check(options: Options, folder: Path, outcomes: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Compares every implementation's neighbours with ours. Raises BenchError.

    The scores at each rank must agree. Where the neighbours differ, the float64 score of the other neighbour must be
    equally high (a tie).
    """
    del options
    x, y = _sides(folder)
    ours = next(iter(outcomes.values()))
    furthest, swapped = 0.0, 0
    for name, theirs in outcomes.items():
        for way, queries, pool in (('forward', x, y), ('backward', y, x)):
            values, indices = theirs[f'{way}_values'], theirs[f'{way}_indices']
            row, place = np.nonzero(indices != ours[f'{way}_indices'])
            exact = np.einsum('nd,nd->n', queries[row].astype(np.float64), pool[indices[row, place]].astype(np.float64))
            apart = max(
                float(np.abs(values - ours[f'{way}_values']).max()),
                float(np.abs(exact - ours[f'{way}_values'][row, place]).max(initial=0)),
            )
            if not apart < NEAR:
                raise BenchError(f'{name} finds other neighbours than ours ({way}): scores differ by {apart:.3g}')
            furthest, swapped = max(furthest, apart), swapped + len(row)
    return (
        f'Every implementation found the same neighbours: scores within {furthest:.1e}, {swapped} neighbours of nearly '
        'equal score in another order.'
    )
