"""The paper's claims F1 to F22, each decided by one pure function of results."""
