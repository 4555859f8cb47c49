"""What a finished screen leaves: tables, metadata, statistics, the report."""
