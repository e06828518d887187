"""Blob stores: verified bytes under keys that are never reused."""
