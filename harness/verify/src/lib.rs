//! Compares two transcripts and judges what differs.

#![forbid(unsafe_code)]
