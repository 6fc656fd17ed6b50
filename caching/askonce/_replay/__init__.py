"""Record and replay: answers of one test in one readable file, and a cache that stands in for providers."""
