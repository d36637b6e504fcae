"""The guides' own commands and variables, in our terms. Called by the scripts that a workspace is seeded with."""
