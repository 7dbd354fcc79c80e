"""EMAIL: what it takes (models), what it does (task), and how: message, smtp, and child, which renders templates."""
