"""Run native runtimes in a process of their own: one that dies, hangs or eats memory ends alone."""
