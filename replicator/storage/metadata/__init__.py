"""Metadata of one node: rows in SQLite or PostgreSQL, one statement text for both."""
