"""Object stores for tests, each in a process of its own: fixtures `gcs` and `s3`."""
