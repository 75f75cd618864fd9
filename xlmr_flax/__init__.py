"""Three-phase cross-lingual transfer in JAX/Flax, after Phang et al. 2020 (X-STILTs)."""

__version__ = '0.2.0'
