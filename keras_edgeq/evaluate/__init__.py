"""What exported artifacts cost and how good they are, on their own runtimes."""
