"""What every request meets, one concept a file; knows nothing of accounts, orders or payments."""
