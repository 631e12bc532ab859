"""What differs from one SQL system to the next."""
