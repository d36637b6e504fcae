"""What became of a LoRA: pictures at several strengths, and the report that shows them. Used by the trainer."""
