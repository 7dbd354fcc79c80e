"""The taskflow command and the embedded platform."""
