"""Parts that take data in and send messages out."""
