"""The label of a token that is not scored; a module without imports, which the baselines' processes read as well."""

IGNORED = -1
