"""Rules of struct pages: their words, compound pages, references, free pages."""
