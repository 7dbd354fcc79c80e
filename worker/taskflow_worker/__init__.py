"""The worker engine, the scheduler and the task types of the box."""
