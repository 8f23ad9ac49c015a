"""The page that shows the course of a run."""
