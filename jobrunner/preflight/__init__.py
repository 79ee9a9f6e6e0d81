"""What can be found out about a valid job before its first run; nothing of it is imported unless it is asked for."""
