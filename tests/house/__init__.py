"""How the code is laid out: the table of rooms, what source files and the docs say, and the tests of them."""
