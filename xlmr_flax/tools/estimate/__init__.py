"""Estimates memory and time of training and evaluation on TPUs from programs compiled ahead of time, without a TPU."""

from xlmr_flax.util.errors import UserError


class EstimateError(UserError, ValueError):
    """An estimate is not possible: unknown topology, a batch that cannot be sharded, or libtpu is not installed."""
