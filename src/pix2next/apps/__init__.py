"""What the network is used for, one file a use."""
