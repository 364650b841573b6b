"""Write a checkpoint's model for other runtimes, and check each file in the runtime that it is for."""
