"""Reading and writing folders that nobody can break."""
