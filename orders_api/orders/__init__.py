"""What is bought: orders, their items, their history."""
