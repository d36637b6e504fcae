"""What pages and API both show: pydantic models and plain functions of the workspace, one file a subject. No Flask."""
