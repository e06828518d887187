"""The use cases of one registry node: each checks access, decides, and changes the node in one transaction."""
