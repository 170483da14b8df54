"""For teachers and developers: pages, stepping through a run, homework. No script needs them."""
