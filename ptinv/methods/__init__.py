"""Every method is a row: `table.py` is the table, the other files are what its cells hold."""
