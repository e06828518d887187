"""The HTTP edge of a node: OCI Distribution 1.1 under `/v2/`, health and metrics beside it."""
