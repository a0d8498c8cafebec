"""What stands between requests and the engine: a bounded queue, batches, sharing and cancellation."""
