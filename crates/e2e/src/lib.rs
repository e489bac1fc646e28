//! Tests against the real binary.
