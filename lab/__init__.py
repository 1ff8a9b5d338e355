"""Embedded services (PostgreSQL, SMTP sink, scripted SMTP server) for tests, demo and benchmark."""
