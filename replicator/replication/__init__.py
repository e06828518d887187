"""Bringing images to other nodes: jobs from the outbox, one lane for each destination."""
