"""Hands events on to whoever wants them: at least once, in the order that each sink is promised."""
