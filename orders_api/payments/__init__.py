"""What a payment provider tells us, and what that does to an order."""
