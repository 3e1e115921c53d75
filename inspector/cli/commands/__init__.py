"""The commands, one file each, named as the command is; `inspector.cli` lists them."""
