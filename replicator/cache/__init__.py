"""The pull-through cache: repositories that are filled from an upstream on first use, and checked for freshness."""
