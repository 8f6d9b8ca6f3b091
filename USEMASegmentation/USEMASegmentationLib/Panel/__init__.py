"""What the user sees and clicks. The only room that knows Qt."""
