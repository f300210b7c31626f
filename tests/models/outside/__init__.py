"""Families and a head as a program of somebody else declares them, one a file."""
