"""Archives, as their bytes come, into lines. Pure."""
