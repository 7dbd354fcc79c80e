"""The task types of the box: EMAIL, REPORT and SYNC."""
