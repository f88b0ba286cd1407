"""What is asked and told of the runs of an open store, by whoever does not execute them."""
