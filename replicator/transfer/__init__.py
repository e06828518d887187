"""Moving one blob or one image graph between registries, verified and resumable."""
