"""What one debugging session is, on disk. Needs numpy, protobuf and google-crc32c, and no framework."""
