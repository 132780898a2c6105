"""Measurements of speed, for `scripts/`; nothing else imports them."""
