"""The commands of the command line, one file each: a plain function that Typer reads its options from."""
