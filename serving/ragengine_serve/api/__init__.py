"""What the server can be asked: its own calls, and those of OpenAI's and KServe's clients."""
