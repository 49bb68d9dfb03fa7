"""What a policy decides without a person."""
