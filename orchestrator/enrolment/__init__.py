"""The consortium's operator: invites parties, takes their answers, admits them, and signs the roster."""
