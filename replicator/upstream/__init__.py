"""The one HTTP client of the product: other people's registries, and other nodes."""
