"""What bodies and queries look like, one module a resource."""
