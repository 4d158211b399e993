"""Pure update functions and the epochs made of them; nothing here compiles, reads or writes."""
