"""What only tests use: doubles, hostile plugins, and the settings of services."""
