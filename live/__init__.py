"""The same while the speech arrives: sound in, the loop, frames out."""
