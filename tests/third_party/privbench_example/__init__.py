"""A stranger's plug-in for privbench: one attack, one defense, one study of one row."""
