"""What a server is told: flags, environment variables and the lines of a TOML file."""
