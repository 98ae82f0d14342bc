"""What the site of docs/ needs beyond its pages: equations, the help of the commands, and a check of what was built."""
