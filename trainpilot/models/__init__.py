"""Base models on disk: what is there and what it is, from headers and configuration files alone."""
