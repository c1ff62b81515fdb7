"""Teaching with the labs: the ledger, exercises and their checks, student and instructor versions, grading, the class view."""
