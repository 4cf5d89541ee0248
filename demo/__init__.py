"""Small models that come with the extension, and how they were made."""
