"""Housekeeping of one node: what nobody asks for and everybody relies on."""
