"""What a clinician reads off a label map; arrays in, numbers out."""
