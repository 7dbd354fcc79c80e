"""`taskflow chaos`: a platform of its own under load while its parts are killed, frozen and emptied; then the audit."""
