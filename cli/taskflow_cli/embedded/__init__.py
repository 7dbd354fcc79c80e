"""The platform on one machine: PostgreSQL, Valkey, a mail catcher and TaskFlow's own processes under one supervisor."""
