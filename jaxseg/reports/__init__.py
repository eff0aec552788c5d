"""Tables, pictures and documents for the reader of a run; knows nothing of training."""
