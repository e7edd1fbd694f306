"""One place per framework: how its files are lifted and how its models are run."""
