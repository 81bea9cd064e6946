"""Where images are: folders, buckets, listings, the packaged set; and what is known of them beside their pixels."""
