"""The console script `tatqa-bench`: one name in front of the commands of the four rooms."""
