"""`taskflow demo`: one task of each type of the box, followed live, and what they left behind."""
