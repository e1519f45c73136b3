"""Everything on disk, checked before it is used and written whole or not at all."""
