"""Who may act: registration, login with lockout, sessions and their tokens."""
