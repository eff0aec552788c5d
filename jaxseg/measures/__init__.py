"""What a clinician reads off a stack and its label map; arrays in, numbers out."""
