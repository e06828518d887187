"""Alembic migrations of a node's metadata."""
