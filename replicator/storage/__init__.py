"""Our bytes and rows: blob stores and metadata databases, each behind a port with one contract suite."""
