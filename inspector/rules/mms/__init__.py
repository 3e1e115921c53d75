"""Rules of mm_structs and their counters."""
