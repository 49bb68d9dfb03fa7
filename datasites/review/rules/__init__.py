"""What a policy decides without a person. Start with ``automatic.py``."""
