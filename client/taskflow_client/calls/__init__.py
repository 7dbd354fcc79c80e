"""Each operation of the API as a function that makes a Call, named like its operationId; one module a resource."""
