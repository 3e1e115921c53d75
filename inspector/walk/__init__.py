"""Page tables walked to the mappings they hold, which everything stored is compared with."""
