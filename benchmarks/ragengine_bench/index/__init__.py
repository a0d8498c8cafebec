"""`ragengine bench index`: index factories side by side."""
