"""`worldmodel view`: a page on which the model plans in the browser."""
