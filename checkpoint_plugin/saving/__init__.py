"""A cut on its way into the database."""
