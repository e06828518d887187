"""Pulls through a cache whose upstreams misbehave at random: no answer may be complete and wrong, and none may hang."""
