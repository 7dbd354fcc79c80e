"""Models, lifecycle, use-cases and queue access of TaskFlow; no HTTP, CLI or cluster."""
