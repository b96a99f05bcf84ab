"""A page in the browser in which photos are segmented, grouped and classified. Importing it loads nothing heavy."""
