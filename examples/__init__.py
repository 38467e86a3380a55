"""The notes behind this project, executable."""
