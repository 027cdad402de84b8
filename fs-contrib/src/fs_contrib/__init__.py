"""Small experimental plugins for fscore: the place to start an idea."""
