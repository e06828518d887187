"""Validated settings: one strict YAML file becomes frozen values, or a list of everything that is wrong with it."""
