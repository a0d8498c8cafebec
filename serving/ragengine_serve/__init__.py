"""The engine as a service: HTTP server, scheduler, metrics and a typed client."""
