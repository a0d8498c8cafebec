"""``ragengine bench scale``: an index of any number of synthetic vectors, built, killed, resumed and searched."""
