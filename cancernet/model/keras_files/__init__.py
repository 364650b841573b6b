"""Files that Keras and tf.keras write, read as data: nothing in them is deserialised into code or run."""
