"""SYNC: what it takes (models), what it does (task), and how: run, source, http, records, store."""
