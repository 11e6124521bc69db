"""Programs that run in their own process, and changes of a process or a thread from outside."""
