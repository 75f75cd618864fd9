"""The label of tokens that are not scored. This module has no imports, so that the baselines' processes can load it."""

IGNORED = -1
