"""The page at /docs: the OpenAPI document for people, without a script and without anything from elsewhere."""
