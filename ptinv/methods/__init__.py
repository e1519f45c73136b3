"""The methods: `table.py` has a row for each, the other files are what its cells hold."""
