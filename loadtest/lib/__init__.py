"""What compare, profile and soak share."""
