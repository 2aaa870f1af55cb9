"""`worldmodel view`: a page on which a run plans in the browser."""
