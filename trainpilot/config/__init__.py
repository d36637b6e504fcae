"""The run configuration: its schema, how it is merged from its sources, and how prompts are written."""
