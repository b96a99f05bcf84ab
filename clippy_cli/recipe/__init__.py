"""Recipes: their fields, their small form, and how YAML becomes one."""
