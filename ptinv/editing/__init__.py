"""What an edit plugs into the walk: conditions, attention controls, and masks."""
