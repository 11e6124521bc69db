"""Programs in a process of their own, and what changes a process or a thread from outside."""
