"""The process: what is built from what, how it starts, runs and ends, and the command line."""
