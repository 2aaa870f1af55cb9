"""Malformed calls, words and files, and kills: what the library does with them."""
