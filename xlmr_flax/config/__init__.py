"""The configuration of a plan: frozen dataclasses, parsed once from a ConfigDict or a plain mapping.

A config file starts from `defaults()`, changes fields and returns a ConfigDict. `parse` turns it into a `Config`. For
an unknown key it raises an error with the closest known name; it also rejects wrong types. No other code uses a
ConfigDict.
"""

from __future__ import annotations

from xlmr_flax.config.checks import (
    CLS,
    E5,
    HEAD_STYLES,
    LABSE,
    MEAN,
    POOLINGS,
    QA_DECODINGS,
    REPEATED,
    check_evaluation,
)
from xlmr_flax.config.parsing import defaults, digest, named, parse, parse_saved, to_dict
from xlmr_flax.config.spec import (
    NONE,
    Arm,
    Config,
    ConfigError,
    EncoderSpec,
    Evaluation,
    Member,
    MeshSpec,
    OptimizerSpec,
    Recipe,
)

__all__ = [
    'CLS',
    'E5',
    'HEAD_STYLES',
    'LABSE',
    'MEAN',
    'NONE',
    'POOLINGS',
    'QA_DECODINGS',
    'REPEATED',
    'Arm',
    'Config',
    'ConfigError',
    'EncoderSpec',
    'Evaluation',
    'Member',
    'MeshSpec',
    'OptimizerSpec',
    'Recipe',
    'check_evaluation',
    'defaults',
    'digest',
    'named',
    'parse',
    'parse_saved',
    'to_dict',
]
