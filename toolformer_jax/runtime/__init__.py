"""What any long run needs: run directories, progress, memory errors, compile counting, clusters."""
