"""An orders service that other people's money passes through."""

__version__ = "0.1.0"
