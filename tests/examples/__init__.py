"""The examples, run as the README says."""
