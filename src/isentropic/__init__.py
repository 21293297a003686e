"""isentropic: equal entropy for every group."""
