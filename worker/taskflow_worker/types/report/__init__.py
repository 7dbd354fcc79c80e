"""REPORT: what it takes (models), what it does (task), and how: run, data, and a module for each format."""
