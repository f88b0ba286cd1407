"""A checkpoint on its way out of the database: each row is checked before anything is read from it."""
