"""Page tables walked to the mappings they hold: the truth that everything recorded is held against."""
