"""Models for elsewhere: written from a checkpoint, and checked in the runtime that they are for."""
