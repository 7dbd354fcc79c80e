"""A client of TaskFlow's REST API: `taskflow_client.sync.TaskFlow` and `taskflow_client.aio.AsyncTaskFlow`."""
