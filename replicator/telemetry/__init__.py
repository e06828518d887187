"""What the daemon says about itself: events, one line per request, metrics; and the real clock."""
