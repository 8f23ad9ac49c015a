"""From where an archive lies to records: fetched, kept ahead on disk, unpacked, read."""
