"""The decoder step with a dynamic and with a static KV cache."""
