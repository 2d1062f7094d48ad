"""What one row of a table trains and measures."""
