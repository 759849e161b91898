"""Arithmetic on arrays: nothing here knows a network or a file."""
