"""Large values as files beside the database."""
