"""View models: columns and cells for the screens, without Textual."""
