"""A diagnosis as one HTML file."""
