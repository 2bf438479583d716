"""Steps from one shape of the catalogue to the next; a step that was released is never edited."""
