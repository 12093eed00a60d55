"""Whole jobs made of the other rooms."""
