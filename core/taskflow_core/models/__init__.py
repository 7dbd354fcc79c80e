"""The tables, one module a subject; migrations/ holds the same as SQL, and a test compares both."""
