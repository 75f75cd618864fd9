from xlmr_flax.util.errors import UserError

"""What training and evaluation will cost on TPUs, from programs compiled ahead of time on a machine without one."""


class EstimateError(UserError, ValueError):
    """Something that cannot be estimated: an unknown topology, a batch that cannot be cut, libtpu that is missing."""
