"""What is trained, and the exact risks it is held against; users register their own."""
