"""From one framework to another: the only modules that join two rooms."""
