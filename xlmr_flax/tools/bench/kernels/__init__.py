"""Benches of single operations, on the device that this process has."""
