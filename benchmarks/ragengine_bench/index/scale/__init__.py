"""``ragengine bench scale``: an index of many synthetic vectors, built, killed, resumed and searched."""
