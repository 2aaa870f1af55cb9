"""`worldmodel study`: what a run has learned, measured and put on one page."""
