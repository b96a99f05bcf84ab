"""What an evaluation leaves behind: figures in words, pictures, a Markdown table, the report."""
