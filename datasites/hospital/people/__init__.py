"""What operators do on the datasite's own machine about people: list, end, forget; and take the journal elsewhere."""
