"""Ray itself: started or joined, watched, waited for and cleaned up."""
