//! The only reader of the environment, and the way from file, environment and flags to one list of resources.

mod environment;

pub(crate) use environment::Environment;
