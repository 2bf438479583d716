"""Problems from a project's own history: issues, the changes that closed them, and tests that tell whether they are."""
