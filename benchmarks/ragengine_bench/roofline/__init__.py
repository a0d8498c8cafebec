"""The least time that this machine's rates allow."""
