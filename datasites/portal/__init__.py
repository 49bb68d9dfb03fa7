"""The data owner's portal: pages for people and a JSON API for machines, at every datasite."""
