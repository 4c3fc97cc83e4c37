"""The parts of app.py, the page and the jobs behind it, and the page of a human study."""
