"""A container-registry daemon: regional nodes, replication by rule, pull-through cache."""

__version__ = "0.1.0"
