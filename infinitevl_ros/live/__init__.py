"""`infinitevl live`: a page that shows a stream and takes questions about it."""
