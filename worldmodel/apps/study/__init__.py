"""`worldmodel study`: measure what a run has learned, and put it on one page."""
