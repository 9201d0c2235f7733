"""Registered RGB-NIR pairs: found, checked, augmented."""
