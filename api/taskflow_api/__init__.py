"""The REST API of TaskFlow."""
