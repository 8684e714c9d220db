"""One room per framework; rooms never import each other."""
