"""Estimates memory and time of training and evaluation from programs compiled ahead of time, without a TPU or GPU."""

from xlmr_flax.util.errors import UserError


class EstimateError(UserError, ValueError):
    """An estimate is not possible: unknown topology, a batch that cannot be sharded, or a compiler is not installed."""
