"""Tables, figures and documents that report the results of runs."""
