"""Measures the scripts; see README.md. Nothing here is needed to use them."""
