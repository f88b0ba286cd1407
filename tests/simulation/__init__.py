"""A seeded simulation: generated graphs that crash at seeded points and go on from the last durable cut."""
