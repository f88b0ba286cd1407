"""What takes the space of a store, what is kept, and what is deleted."""
