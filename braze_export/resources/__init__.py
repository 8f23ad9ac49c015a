"""What users call, one module for each resource of Braze's API."""
