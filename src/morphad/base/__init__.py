"""What every room uses: errors, files that appear whole, progress, and words."""
