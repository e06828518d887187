"""Values and decisions of a registry: standard library only, no I/O, no clock, no logging."""
