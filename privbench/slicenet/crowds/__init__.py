"""Crowds of unequal devices: named kinds, a log-normal spread, a table of the user's."""
