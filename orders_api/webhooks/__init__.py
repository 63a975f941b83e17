"""What happens to a user's orders, told to the user's own servers."""
