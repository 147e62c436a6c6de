"""Slicers: who hosts which vertex (one file a technique)."""
