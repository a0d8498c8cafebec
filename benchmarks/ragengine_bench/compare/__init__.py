"""`ragengine bench`: engines side by side, as tables, plots and a page."""
